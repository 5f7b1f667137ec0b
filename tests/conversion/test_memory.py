"""The peak memory of the largest conversion."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest

from stlm_jax.weights.file import write_safetensors

torch = pytest.importorskip("torch")

# The peak of a process is asked from within: rusage of a child begins with its parent's.
COMMAND = """
import sys
from conversion.from_torch import main
status = main(sys.argv[1:])
print(open("/proc/self/status").read())
sys.exit(status)
"""


def cheap_tensor(index, shape):
    """Numbers that differ from tensor to tensor and within each, float32."""
    return (np.arange(math.prod(shape), dtype=np.float32) * 1e-7 + index).reshape(shape)


def write_vit_h(golden, path):
    manifest = golden.load_manifest("sam_vit_h")
    if path.suffix == ".safetensors":
        entries = [
            (name, shape, np.float32, lambda i=i, shape=shape: cheap_tensor(i, shape))
            for i, (name, shape) in enumerate(manifest.items())
        ]
        write_safetensors(path, entries, {})
    else:
        torch.save(
            {
                name: torch.from_numpy(cheap_tensor(i, shape))
                for i, (name, shape) in enumerate(manifest.items())
            },
            path,
        )


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vit_h_converts_in_less_than_one_and_a_half_file_sizes(golden, tmp_path, suffix, dtype):
    source, converted = tmp_path / f"vit_h{suffix}", tmp_path / "converted.safetensors"
    write_vit_h(golden, source)
    size = source.stat().st_size
    assert size > 2.5e9
    command = [sys.executable, "-c", COMMAND, source, converted, f"--dtype={dtype}"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "sam_vit_h, 594 tensors" in finished.stderr
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", finished.stdout)[1]) * 1024
    print(f"peak {peak / 1e9:.2f} GB of a file of {size / 1e9:.2f} GB: {peak / size:.2f}")
    assert peak < 1.5 * size
    assert converted.stat().st_size > (0.99 if dtype == "float32" else 0.49) * size
