"""What training keeps of a block for its gradient, and what it computes anew: `config.remat`."""

from typing import Any

from flax import linen as nn


def rematerialised(block: type[nn.Module], remat: str) -> type[nn.Module]:
    """The module `block`, whose call is `(x, train)`, keeping what `remat` says.

    Args:
        block: a module's class.
        remat: `none` keeps all that the gradient reads; `products` what convolutions and dense
            layers give, computing norms, activations and the attention's weights anew, which is
            little arithmetic; `blocks` the block's input alone.
    """
    if remat == "none":
        return block
    policy = _is_product if remat == "products" else None
    return nn.remat(block, static_argnums=(2,), policy=policy)


def _is_product(primitive: Any, *_: Any, **parameters: Any) -> bool:
    """Whether an operation is a layer's product: attention's have a batch of matrices."""
    if primitive.name == "dot_general":
        _, (batch, _) = parameters["dimension_numbers"]
        return not batch
    # `cond` is a depthwise convolution, of which each platform has its own.
    return primitive.name in ("conv_general_dilated", "cond")
