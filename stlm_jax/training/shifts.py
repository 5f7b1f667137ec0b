"""Moving whole lines of an image by their own whole numbers of pixels, without a gather.

A gather of every pixel costs an accelerator hundreds of times the bytes that it moves. Slices and
selections cost a few.
"""

import jax
import jax.numpy as jnp
from jax import lax


def shift_lines(image, amounts, axis: int, most: int):
    """Moves every line along `axis` by an amount of its own.

    Args:
        image: (…, H, W) of any dtype, `most` pixels longer along `axis` than the result.
        amounts: int32, (W,) where `axis` is -2, (H,) where it is -1; each in 0..most.
        axis: -2 moves columns, -1 rows.
        most: the largest amount; it takes as many selections as it has bits.

    Returns:
        The image whose pixel i of a line is pixel i + amount of that line in `image`.
    """
    amounts = jnp.expand_dims(amounts, axis)
    while most:
        step = (most + 1) // 2
        far = amounts >= step
        length = image.shape[axis] - step
        image = jnp.where(far, part(image, axis, step, length), part(image, axis, 0, length))
        amounts = jnp.where(far, amounts - step, amounts)
        most -= step
    return image


def part(image, axis: int, start: int, length: int):
    """`length` pixels of every line along `axis`, -2 or -1, from `start` on."""
    return lax.slice_in_dim(image, start, start + length, axis=image.ndim + axis)


def quarter_turns(image, turns):
    """`np.rot90` of the last two axes, of equal length, by a traced number of turns in 0..3."""
    turned = jnp.flip(jnp.swapaxes(image, -1, -2), -2)
    image = jnp.where(turns % 2 == 1, turned, image)
    return jnp.where(turns >= 2, jnp.flip(image, (-1, -2)), image)


def stage(wanted, function, *arguments):
    """`function(*arguments)`, or zeros where the scalar `wanted` is false.

    A conditional is where XLA's CPU compiler stops fusing. Without it a step that reads its input
    at several places would compute that input as often.
    """
    shape = jax.eval_shape(function, *arguments)
    return lax.cond(wanted, function, lambda *_: jnp.zeros(shape.shape, shape.dtype), *arguments)
