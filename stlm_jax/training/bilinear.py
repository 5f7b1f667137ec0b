"""Bilinear rotation of uint8 images by a small angle, without a gather.

The value of a pixel is a blend of four, at (floor(y) + 0..1, floor(x) + 0..1) of its place (y, x)
in the source. These are brought to it exactly, in two passes: every column is moved by its own
amount along y, then every row along x. Within a line the amount varies by the few pixels that a
rotation stretches it by, so each pass ends with a choice among as many neighbours. What is moved
in the second pass are words of three pixels of a column, one of which has that neighbour below it
that a pixel needs, and of the row that they are from.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stlm_jax.training.shifts import part, quarter_turns, shift_lines, stage

_BITS = 18  # of fractions of a pixel: exact integers, the same in whatever program


class _Frame(NamedTuple):
    """Lengths in pixels, along y and x, of an image of `size` that is turned by up to an angle.

    Attributes:
        size: of the image, height and width.
        side: of the square that holds it.
        corner: where in the square it begins.
        reach: by how much a column (along y) or a row (along x) is moved at most, either way.
        stretch: by how much the place of a pixel differs from its line's, either way.
    """

    size: tuple[int, int]
    side: int
    corner: tuple[int, int]
    reach: tuple[int, int]
    stretch: tuple[int, int]

    @property
    def margin(self) -> tuple[int, int]:
        """How much to lay around the square."""
        return self.reach[0] + self.stretch[0] + 1, self.reach[1] + self.stretch[1] + 1

    @property
    def odd(self) -> tuple[int, int]:
        """1 where the image cannot lie in the square's middle, but half a pixel before it."""
        return tuple((self.side - length) % 2 for length in self.size)  # type: ignore[return-value]


def _frame(size: tuple[int, int], largest: float) -> _Frame:
    (height, width), side, angle = size, max(size), math.radians(largest)
    # Two pixels more than the formulas give: half pixels, rounding, and the neighbour at the right.
    stretch = (
        math.ceil((1 / math.cos(angle) - 1) * height / 2),
        math.ceil((1 - math.cos(angle)) * width / 2) + 2,
    )
    along_x = math.ceil(math.sin(angle) * height / 2) + 2
    columns = side / 2 + along_x + stretch[1] + 2
    reach = math.ceil(math.tan(angle) * columns) + 2, along_x
    corner = (side - height) // 2, (side - width) // 2
    return _Frame(size, side, corner, reach, stretch)


class _Turn(NamedTuple):
    """One rotation; `place` is twice the place of the image's centre in the square, int32.

    It is counted from the square's centre, after the quarter turns.
    """

    cos: jax.Array
    sin: jax.Array
    turn_cos: jax.Array
    turn_sin: jax.Array
    place: tuple[jax.Array, jax.Array]


def _turn(frame: _Frame, turns, degrees) -> _Turn:
    angle = jnp.deg2rad(degrees)
    turn_cos = jnp.where(turns == 0, 1, 0) - jnp.where(turns == 2, 1, 0)
    turn_sin = jnp.where(turns == 1, 1, 0) - jnp.where(turns == 3, 1, 0)
    y, x = (-odd for odd in frame.odd)
    place = turn_cos * y - turn_sin * x, turn_sin * y + turn_cos * x
    return _Turn(jnp.cos(angle), jnp.sin(angle), turn_cos, turn_sin, place)


def _fixed(value):
    return jnp.round(value * 2**_BITS).astype(jnp.int32)


def _rounded(doubled):
    """The whole number nearest to half of a fixed-point number."""
    return (doubled + 2**_BITS) >> (_BITS + 1)


def _squared(frame: _Frame, image, turns):
    """(H, W, C) to (C + 1, …) uint8: turned, in its square with a margin, and the rows' numbers."""
    planes = jnp.moveaxis(image, -1, 0)
    before = frame.corner
    after = [frame.side - n - b for n, b in zip(frame.size, before, strict=True)]
    planes = jnp.pad(planes, ((0, 0), *zip(before, after, strict=True)), mode="edge")
    planes = quarter_turns(planes, turns)
    margins = [(margin, margin) for margin in frame.margin]
    planes = jnp.pad(planes, ((0, 0), *margins), mode="edge")
    rows = jax.lax.broadcasted_iota(jnp.uint8, (1, *planes.shape[1:]), 1)  # modulo 256
    return jnp.concatenate([planes, rows])


def _column_amounts(frame: _Frame, turn: _Turn):
    """Twice the way of each column along y, but for the stretch, fixed-point."""
    columns = frame.side + 2 * frame.margin[1]
    doubled_x = 2 * jnp.arange(columns) - (columns - 1) - turn.place[1]
    slope = _fixed(jnp.tan(jnp.arctan2(turn.sin, turn.cos)))
    return slope * doubled_x + (frame.odd[0] + turn.place[0]) * 2**_BITS


def _move_columns(frame: _Frame, planes, turns, degrees):
    """(C + 1, side, side) with margins to (C + 1, H + 2·stretch + 2, side with margin)."""
    amounts = _rounded(_column_amounts(frame, _turn(frame, turns, degrees)))
    most = 2 * frame.reach[0]
    length = frame.size[0] + 2 * frame.stretch[0] + 2 + most
    return shift_lines(
        part(planes, -2, frame.corner[0], length), amounts + frame.reach[0], -2, most
    )


def _move_rows(frame: _Frame, planes, turns, degrees):
    """The words of every pixel, each row at its place: (C, H, W + 2·stretch) int32."""
    (height, width), (stretch, margin) = frame.size, frame.stretch
    turn = _turn(frame, turns, degrees)
    doubled_y = 2 * jnp.arange(height) - (height - 1)
    way = _column_amounts(frame, turn)
    stretched = _rounded(way + _fixed(1 / turn.cos - 1) * doubled_y[:, None]) - _rounded(way)

    def chosen(neighbour):
        found = part(planes, -2, stretch + neighbour, height)
        for k in (k for k in range(-stretch, stretch + 1) if k):
            found = jnp.where(
                stretched == k, part(planes, -2, stretch + neighbour + k, height), found
            )
        return found.astype(jnp.int32)

    above, here, below = map(chosen, range(3))
    words = above[:-1] | here[:-1] << 8 | below[:-1] << 16 | here[-1:] << 24
    amounts, most = _row_amounts(frame, turn), 2 * frame.reach[1]
    words = part(words, -1, frame.corner[1] + 1, width + 2 * margin + most)
    return shift_lines(words, amounts + frame.reach[1], -1, most)


def _row_amounts(frame: _Frame, turn: _Turn):
    doubled_y = 2 * jnp.arange(frame.size[0]) - (frame.size[0] - 1)
    return _rounded(_fixed(-turn.sin) * doubled_y + (frame.odd[1] + turn.place[1]) * 2**_BITS)


def _blended(frame: _Frame, fill: int, words, turns, degrees):
    """(H, W, C) uint8 of the words."""
    (height, width), margin = frame.size, frame.stretch[1]
    turn = _turn(frame, turns, degrees)
    # Pixel centres relative to the image's centre, which makes all of them exact in float32.
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    x, y = turn.cos * x - turn.sin * y, turn.sin * x + turn.cos * y  # (H, W)
    inside = _inside(turn.turn_cos * y + turn.turn_sin * x, height)
    inside &= _inside(turn.turn_cos * x - turn.turn_sin * y, width)
    y, x = (v + (frame.side - 1 + at) / 2 for v, at in zip((y, x), turn.place, strict=True))
    top, left = jnp.floor(y), jnp.floor(x)
    dy, dx = y - top, x - left
    row, column = top.astype(jnp.int32), left.astype(jnp.int32)
    place = column - frame.corner[1] - jnp.arange(width) - _row_amounts(frame, turn)[:, None]
    at_left = at_right = part(words, -1, margin, width)
    for k in range(-margin, margin + 1):
        neighbour = part(words, -1, margin + k, width)
        at_left = jnp.where(place == k, neighbour, at_left)
        at_right = jnp.where(place == k - 1, neighbour, at_right)

    def pair(words):
        # The pixel of the row is the middle one of its word, or the one above it.
        middle = ((row + frame.margin[0] - (words >> 24)) & 255) == 0
        words >>= jnp.where(middle, 8, 0)
        return (words & 255).astype(jnp.float32), ((words >> 8) & 255).astype(jnp.float32)

    (upper, lower), (upper_right, lower_right) = pair(at_left), pair(at_right)
    upper, lower = upper + dx * (upper_right - upper), lower + dx * (lower_right - lower)
    values = (upper + dy * (lower - upper)).astype(jnp.uint8)
    return jnp.moveaxis(jnp.where(inside, values, jnp.uint8(fill)), 0, -1)


def _inside(position, length):
    return (position >= -length / 2) & (position < length / 2)


def rotate_bilinear(image, quarter_turns, degrees, largest: float, fill: int, wanted=True):
    """Turns an image counterclockwise about its centre, see `rotation.rotate`.

    Args:
        image: (H, W, C) uint8.
        quarter_turns: int32, 0..3.
        degrees: float32, in ±largest.
        largest: degrees; what it costs grows with it.
        fill: of what is outside of the image.
        wanted: a scalar, false where nobody uses the result.

    Returns:
        (H, W, C) uint8, bilinear values truncated.
    """
    frame = _frame(image.shape[:2], largest)
    found = stage(wanted, functools.partial(_squared, frame), image, quarter_turns)
    moved = functools.partial(_move_columns, frame), functools.partial(_move_rows, frame)
    for function in (*moved, functools.partial(_blended, frame, fill)):
        found = stage(wanted, function, found, quarter_turns, degrees)
    return found
