"""Which parts of the model take part, for ablations."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_collections

from stlm_jax.config import KEYS

_STREAMS = {"both": (True, True), "plain": (True, False), "denoising": (False, True)}
_LEVELS = {"both": (True, True), "1": (True, False), "2": (False, True)}


class Components(NamedTuple):
    """Parts that take part; each a bool, or a scalar bool array that members differ in.

    A part that does not is neither guided nor looked at: of one stream alone FA sees the unit
    features, a level that is left out is zeros.

    Attributes:
        plain: the plain stream.
        denoising: the denoising stream.
        level1: the encoders' features.
        level2: the decoder's.
        fa: the FA module; without it the map is `cosine_distance_map`, scaled to 0..1.
    """

    plain: Any = True
    denoising: Any = True
    level1: Any = True
    level2: Any = True
    fa: Any = True

    @classmethod
    def of(cls, student: ml_collections.ConfigDict) -> "Components":
        """Those that `config.student` asks for."""
        return cls(*_STREAMS[student.streams], *_LEVELS[student.levels], student.fa)

    @property
    def levels(self) -> tuple[Any, Any]:
        """Whether each feature level takes part."""
        return self.level1, self.level2

    @property
    def comparable(self) -> bool:
        """Whether there is a map with the FA module and one without."""
        return bool(self.fa and self.plain and self.denoising)

    @property
    def guided(self) -> tuple[Any, ...]:
        """Whether each of the four guidance terms does: both levels of the plain stream first."""
        streams = self.plain, self.denoising
        return tuple(stream & level for stream in streams for level in self.levels)


PUBLISHED = Components()


def unpublished(student: ml_collections.ConfigDict) -> dict[str, Any]:
    """What `config.student` asks for that published code does not know, by key."""
    keys = {name: student[name] for name in ("streams", "decoder", "levels", "fa")}
    return {name: value for name, value in keys.items() if value != KEYS[f"student.{name}"].default}


def chosen(flag: Any, value: Any, other: Any):
    """`value` where `flag`, a bool or an array, is true, else `other`."""
    if isinstance(flag, bool):  # what is not looked at is not computed, nor exported
        return value if flag else jnp.broadcast_to(other, value.shape).astype(value.dtype)
    return jnp.where(flag, value, other)
