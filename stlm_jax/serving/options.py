"""What the server is told at its start, and what of it is refused."""

import dataclasses
import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note

DEFAULT = "default"  # the name of a model that was given none
TOKEN = "STLM_TOKEN"  # the environment's variable
LARGEST_BATCH = 8  # images in one call, as of `Detector`
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_RANGES = {  # of options, both ends included
    "port": (0, 65535),
    "max_wait_ms": (0, 10_000),
    "max_batch": (1, LARGEST_BATCH),
    "queue": (1, 100_000),
    "timeout_s": (0.01, 86_400),
    "max_upload_mb": (0.001, 4096),
    "image_size": (0, 65_536),
    "max_pixels": (1, 178_956_970),  # what PIL decodes at most
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How to serve.

    Attributes:
        models: what `Detector.load` takes, by name; the first answers where a request names none.
        host: address to listen at.
        port: 0 takes a free one.
        max_wait_ms: a request waits so long for others at most, to share a call of the model.
        max_batch: images in a call at most.
        queue: images at most that are received, waiting or being answered; then 429.
        timeout_s: seconds from a request's first byte to its answer; then 504.
        max_upload_mb: 10⁶ bytes of an image at most.
        max_pixels: of an image, width · height.
        image_size: side in pixels of what the networks see; 0: that of training, where known.
        token_file: holds the token that requests must bear; "": that of `STLM_TOKEN`, if any.
    """

    models: Mapping[str, str]
    host: str = "127.0.0.1"
    port: int = 8000
    max_wait_ms: float = 5.0
    max_batch: int = 8
    queue: int = 64
    timeout_s: float = 30.0
    max_upload_mb: float = 20.0
    max_pixels: int = 50_000_000
    image_size: int = 0
    token_file: str = ""

    def __post_init__(self):
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:  # of NaN neither holds
                raise UserError(f"--{name}={value}: must be {least} to {most}")

    @property
    def max_bytes(self) -> int:
        """Of an image's file at most."""
        return int(self.max_upload_mb * 1_000_000)


def models_of(arguments: Sequence[str]) -> dict[str, str]:
    """Models by name from `PATH`, which is then called `default`, or `NAME=PATH`, in order.

    What stands before `=` is a name only if it has letters, digits, `.`, `_` and `-` alone.
    """
    models: dict[str, str] = {}
    for argument in arguments:
        name, found, path = argument.partition("=")
        if not (found and _NAME.fullmatch(name)):
            name, path = DEFAULT, argument
        if not path:
            raise UserError(f"{argument}: no path; give NAME=PATH")
        if name in models:
            raise UserError(
                f"{argument}: a second model called {name}; give each a name of its own, NAME=PATH"
            )
        models[name] = path
    return models


def token_of(options: Options) -> str | None:
    """The token that requests must bear, or None where they need none."""
    if options.token_file:
        source = options.token_file
        try:
            text = Path(source).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"--token_file={source}: {error.strerror}") from None
        except ValueError:
            raise UserError(f"--token_file={source}: holds no text") from None
        if Path(source).stat().st_mode & 0o004:
            note(f"warning: {source}: every user of this machine can read it; chmod 600 {source}")
    elif TOKEN in os.environ:
        source, text = TOKEN, os.environ[TOKEN]
    else:
        return None
    token = text.strip()
    # An empty one, as of a secret that was not filled in, must not open the server.
    if not token or not all("!" <= c <= "~" for c in token):
        raise UserError(f"{source}: a token is one word of visible ASCII characters")
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host's address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
