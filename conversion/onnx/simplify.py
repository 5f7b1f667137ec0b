# ruff: noqa: D102
"""Makes what jax2onnx writes smaller and faster, without another meaning.

onnxscript folds constants; two rules here undo how JAX spells normalisations out, which no
general optimiser recognises through the transpositions between NHWC and NCHW. A rule's `pattern`
is what it looks for, `check` the condition, `rewrite` what it puts there.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from onnxscript.rewriter import pattern
from onnxscript.rewriter.rules.common import (
    materialize_reshape_shape_rule,
    reshape_reshape_rule,
    transpose_transpose_rule,
)

_NO_LIMIT = 2**31
_NHWC_FROM_NCHW = (0, 2, 3, 1)


def _constant(value: ir.Value) -> np.ndarray | None:
    return None if value.const_value is None else value.const_value.numpy()


def _equals(value: ir.Value, expected: float) -> bool:
    array = _constant(value)
    return array is not None and array.size == 1 and array.item() == expected


def _varies_along_last_axis(value: ir.Value, length: int) -> bool:
    array = _constant(value)
    return array is not None and array.ndim > 0 and array.size == length == array.shape[-1]


class FoldBatchNorm(pattern.RewriteRuleClassBase):
    """`(conv − mean) · factor + bias` over channels is a convolution with other weights.

    The weights are computed in float64 and rounded once.
    """

    def pattern(self, op, x, kernel, mean, factor, bias):
        convolved = op.Transpose(op.Conv(x, kernel, _outputs=["conv"]), _outputs=["moved"])
        return op.Add(op.Mul(op.Sub(convolved, mean), factor), bias)

    def check(self, context, conv, moved, kernel, mean, factor, bias, **_):
        result = pattern.MatchResult()
        if tuple(moved.producer().attributes.get_ints("perm", ())) != _NHWC_FROM_NCHW:
            return result.fail("the channels are not moved last")
        weights = _constant(kernel)
        if weights is None:
            return result.fail("the kernel is not constant")
        channels = len(weights)
        if not all(_varies_along_last_axis(value, channels) for value in (mean, factor, bias)):
            return result.fail("not one constant a channel")
        return result

    def rewrite(self, op, x, conv, kernel, mean, factor, bias, **_):
        weights = _constant(kernel)
        mean, factor, bias = (
            _constant(value).astype(np.float64).reshape(-1) for value in (mean, factor, bias)
        )
        folded = {
            "kernel": weights * factor[:, None, None, None],
            "bias": bias - mean * factor,
        }
        tensors = [
            op.initializer(ir.tensor(value.astype(weights.dtype)), name=f"{conv.name}_{name}")
            for name, value in folded.items()
        ]
        y = op.Conv(x, *tensors, **conv.producer().attributes)
        return op.Transpose(y, perm=_NHWC_FROM_NCHW)


class FuseLayerNorm(pattern.RewriteRuleClassBase):
    """`stlm_jax.models.layers.LayerNorm` is ONNX's LayerNormalization over the last axis.

    The operator computes in float32 even where its input is float16.
    """

    def pattern(self, op, x, axes, mean_shape, variance_shape, count, epsilon, one, scale, bias):
        mean = op.Div(op.Reshape(op.ReduceSum(x, axes), mean_shape), count)
        centred = op.Sub(x, mean)
        squares = op.Reshape(op.ReduceSumSquare(centred, axes), variance_shape)
        deviation = op.Sqrt(op.Add(op.Div(squares, count), epsilon))
        return op.Add(op.Mul(op.Mul(centred, op.Div(one, deviation)), scale), bias)

    def check(self, context, x, axes, count, epsilon, one, scale, bias, **_):
        result = pattern.MatchResult()
        if x.shape is None or _constant(epsilon) is None:
            return result.fail("shape or epsilon is not known")
        channels = x.shape[-1]
        if not (_equals(axes, len(x.shape) - 1) and _equals(count, channels) and _equals(one, 1)):
            return result.fail("not a mean over the last axis")
        if not all(_varies_along_last_axis(value, channels) for value in (scale, bias)):
            return result.fail("not one constant a channel")
        return result

    def rewrite(self, op, x, epsilon, scale, bias, **_):
        scale, bias = (
            op.initializer(ir.tensor(_constant(value).reshape(-1)), name=f"{x.name}_{value.name}")
            for value in (scale, bias)
        )
        return op.LayerNormalization(
            x, scale, bias, axis=-1, epsilon=_constant(epsilon).item(), stash_type=1
        )


class SpellOutSigmoid(pattern.RewriteRuleClassBase):
    """onnxruntime's Sigmoid errs by 1e-7 even where the result, as on a good image, is smaller.

    1 / (1 + exp(−x)) is as exact for small results as for large ones.
    """

    def pattern(self, op, x):
        return op.Sigmoid(x)

    def rewrite(self, op, x):
        one = op.initializer(ir.tensor(np.float32(1)), name=f"{x.name}_one")
        return op.Div(one, op.Add(one, op.Exp(op.Neg(x))))


_TIDY = ir.passes.Sequential(
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    passes.RemoveUnusedNodesPass(),
    passes.DeduplicateInitializersPass(size_limit=_NO_LIMIT),
    passes.CommonSubexpressionEliminationPass(),
    passes.RemoveUnusedNodesPass(),
)


def simplify(model: ir.Model) -> None:
    """Folds constants, fuses normalisations and drops what nothing uses; in place."""
    optimizer.fold_constants(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    _apply(model, materialize_reshape_shape_rule)  # frees values that the rules below consume
    _apply(
        model,
        FoldBatchNorm.rule(),
        FuseLayerNorm.rule(),
        SpellOutSigmoid.rule(),
        reshape_reshape_rule,
        transpose_transpose_rule,
    )


def _apply(model: ir.Model, *rules: pattern.RewriteRule) -> None:
    pattern.RewriteRuleSet(list(rules)).apply_to_model(model)
    _TIDY(model)
