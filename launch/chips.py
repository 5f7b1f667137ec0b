"""What accelerators have, and which of them a topology's name means.

Sources: docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e (bfloat16 operations, bandwidth of
HBM and of the interconnect, of which one direction is half of what is called bidirectional);
NVIDIA's data sheets of A100 80 GB SXM, H100 SXM and H200 SXM (dense, without sparsity). Memory of
TPUs is what libtpu 0.0.42 lets a program have, by its own refusals, a little below the nominal 16,
32, 95 and 32 GB; of GPUs it is the nominal figure, of which JAX takes three quarters by default.
"""

import dataclasses
import math
import re
from typing import Any

from stlm_jax.runtime import libtpu
from stlm_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator; figures that are not known are nan.

    Attributes:
        memory_gib: GiB of HBM that a program may have.
        tflops: 10^12 bfloat16 operations a second.
        memory_gbps: 10^9 bytes a second between HBM and the chip.
        link_gbps: 10^9 bytes a second that it sends to other chips.
        passes: by `config.precision`, how many times as long float32 products of matrices take as
            bfloat16 ones; TPUs make them of one, three or six products of bfloat16, GPUs of TF32.
    """

    memory_gib: float = math.nan
    tflops: float = math.nan
    memory_gbps: float = math.nan
    link_gbps: float = math.nan
    passes: dict[str, float] = dataclasses.field(default_factory=dict)

    def operations(self, dtype: str, precision: str) -> float:
        """Operations a second of products of matrices in a dtype."""
        slower = 1.0 if dtype == "bfloat16" else self.passes.get(precision, math.nan)
        return 1e12 * self.tflops / slower


_TPU = {"default": 1.0, "high": 3.0, "highest": 6.0}
_GPU = {"default": 2.0, "high": 2.0, "highest": 989 / 67}  # TF32, and float32 without tensor cores
CHIPS = {
    "v4": Chip(30.75, 275, 1228, 300, _TPU),
    "v5e": Chip(15.75, 197, 819, 200, _TPU),
    "v5p": Chip(95.74, 459, 2765, 600, _TPU),
    "v6e": Chip(31.25, 918, 1640, 400, _TPU),
    "a100": Chip(80e9 / 2**30, 312, 2039, 300, {**_GPU, "highest": 16.0}),
    "h100": Chip(80e9 / 2**30, 989, 3350, 450, _GPU),
    "h200": Chip(141e9 / 2**30, 989, 4800, 450, _GPU),
    "cpu": Chip(),
}
_TYPES = {"v4": ("v4", 2), "v5e": ("v5litepod", 1), "v5p": ("v5p", 2), "v6e": ("v6e", 1)}
_SIDES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2}
EXAMPLES = "v5e:4x4, v6e:2x2, v5p:2x2x1, v4:2x2x1, gpu:h100x8, cpu, cpu:8"


@dataclasses.dataclass(frozen=True)
class Topology:
    """Some accelerators of one kind that are connected.

    Attributes:
        name: as given.
        platform: `tpu`, `gpu` or `cpu`.
        kind: a key of `CHIPS`.
        sides: chips along each axis.
    """

    name: str
    platform: str
    kind: str
    sides: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """What one of them has."""
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        """How many there are."""
        return math.prod(self.sides)

    def description_options(self) -> dict[str, Any]:
        """What `get_topology_desc` wants besides the name."""
        if self.kind == "v4":  # two cores that a program sees as one, as on the real machines
            return {"chip_config_name": "megacore"}
        if self.chips == 1:  # by default a host has four
            return {"chips_per_host_bounds": (1, 1, 1)}
        return {}

    def environment(self) -> dict[str, str]:
        """What libtpu is to find in its environment, lest it ask the machine what it is."""
        if self.platform != "tpu":
            return {}
        kind, cores = _TYPES[self.kind]
        return {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": f"{kind}-{self.chips * cores}",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_WORKER_ID": "0",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing runs there, so nothing is in the way
            libtpu.ARGUMENTS: libtpu.arguments(),
        }


def parse_topology(name: str) -> Topology:
    """What a name such as `v5e:4x4`, `gpu:h100x8`, `cpu` or `cpu:8` means."""
    text = name.strip().lower()
    simulated = re.fullmatch(r"cpu(?::([1-9]\d{0,2}))?", text)
    if simulated:
        return Topology(name, "cpu", "cpu", (int(simulated[1] or 1),))
    gpu = re.fullmatch(r"gpu:([a-z]+\d+)x([1-9]\d{0,4})", text)
    if gpu and gpu[1] in CHIPS:
        return Topology(name, "gpu", gpu[1], (int(gpu[2]),))
    kind, _, shape = text.partition(":")
    if kind in _SIDES and re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3})+", shape):
        sides = tuple(map(int, shape.split("x")))
        if len(sides) == _SIDES[kind]:
            return Topology(text, "tpu", kind, sides)
        raise UserError(
            f"--topology={name}: slices of {kind} have {_SIDES[kind]} sides, such as "
            f"{kind}:{'x'.join('2' * _SIDES[kind])}"
        )
    raise UserError(f"--topology={name}: is not known; name one such as {EXAMPLES}")
