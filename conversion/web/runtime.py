"""onnxruntime-web, the two files of it that run a model, from npm or from a folder."""

import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# What the page calls them: the package's file and, of `VERSION`, its SHA-256. Servers know what a
# `.js` is, not all know a `.mjs`. WebAssembly without WebGPU; one thread needs no other file.
FILES = {
    "ort/ort.js": (
        "ort.wasm.bundle.min.mjs",
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "ort/ort.wasm": (
        "ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
_OFFER = f"or give the dist folder of {PACKAGE} {VERSION}, --onnxruntime_web=PATH"
_SECONDS = 600  # that npm may take; the package is of 33 MB


def runtime_files(folder: Path | None = None) -> dict[str, bytes]:
    """The content of `FILES` by the names that they have in an export.

    Args:
        folder: the package's `dist`, or the package; None: npm packs it, as npm is configured.
    """
    if folder is None:
        return _from_npm()
    files = {}
    for name, (source, digest) in FILES.items():
        path = next((p for p in (folder / source, folder / "dist" / source) if p.is_file()), None)
        if path is None:
            raise UserError(
                f"--onnxruntime_web={folder}: holds no {source}; give the dist folder of "
                f"{PACKAGE} {VERSION}"
            )
        files[name] = path.read_bytes()
        if hashlib.sha256(files[name]).hexdigest() != digest:
            note(f"warning: {path} is not that of {PACKAGE} {VERSION}, which exports are tested by")
    return files


def _from_npm() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"npm, which brings {PACKAGE}, is not installed: install it, {_OFFER}")
    with tempfile.TemporaryDirectory() as folder:
        # In the user's folder, whose .npmrc counts; a package that lies in npm's cache is enough.
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--prefer-offline", "--ignore-scripts"]
        command += ["--loglevel=error", f"--pack-destination={folder}"]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"npm did not bring {PACKAGE} in {_SECONDS} s: try again, {_OFFER}"
            ) from None
        packed = list(Path(folder).glob("*.tgz"))
        if ended.returncode or not packed:
            raise UserError(
                f"npm brings no {PACKAGE} {VERSION} ({_reason(ended.stderr)}): {_OFFER}"
            )
        return _unpacked(packed[0])


def _reason(text: str) -> str:
    """The first sentence that npm says."""
    said = [
        re.sub(r"^npm (error|ERR!)( notarget)?", "", line).strip() for line in text.splitlines()
    ]
    return next((line for line in said if line.count(" ") > 1), "it does not say why").rstrip(".")


def _unpacked(path: Path) -> dict[str, bytes]:
    files = {}
    for name, (source, digest) in FILES.items():
        try:
            with tarfile.open(path) as archive:
                member = archive.extractfile(f"package/dist/{source}")
                files[name] = member.read() if member else b""
        except (KeyError, EOFError, OSError, tarfile.TarError, zlib.error):
            files[name] = b""  # not there, or damaged
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise UserError(
                f"{source} of {PACKAGE} {VERSION} is not the published one, as npm brings it: "
                f"clean npm's cache, look at its registry, {_OFFER}"
            )
    return files
