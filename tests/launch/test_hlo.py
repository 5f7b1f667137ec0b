"""Collectives, loops and operations against numbers counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from launch import arithmetic, hlo

# As XLA prints modules, shortened. In the loop, which turns three times: an all-reduce of 2 × 4
# float32; a gather that was taken apart into three parts, which share channel 6, of 8 × 4 bfloat16.
MODULE = """\
HloModule jit_step, is_scheduled=true, num_partitions=4

%add.1 (x.1: f32[], y.1: f32[]) -> f32[] {
  %x.1 = f32[] parameter(0)
  ROOT %sum.1 = f32[]{:T(128)} add(%x.1, %y.1)
}

%start (p.0: bf16[2,4]) -> (bf16[2,4], bf16[8,4], u32[]) {
  %all-gather.1 = bf16[8,4]{1,0:T(8,128)(2,1)} all-gather(%p.0), channel_id=6, dimensions={0}
}

%done (p.1: bf16[2,4]) -> bf16[8,4] {
  ROOT %all-gather.2 = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} all-gather(%p.1), channel_id=6
}

%body (p.2: (s32[], f32[2,4])) -> (s32[], f32[2,4]) {
  %all-reduce.1 = f32[2,4]{1,0:T(8,128)} all-reduce(%g.1), channel_id=2, to_apply=%add.1
  %s.1 = (bf16[2,4]{1,0}, bf16[8,4]{1,0}, u32[]) fusion(%g.2), kind=kCustom, calls=%start
  %d.1 = bf16[8,4]{1,0} fusion(%s.1), kind=kCustom, calls=%done
}

%condition (p.3: (s32[], f32[2,4])) -> pred[] {
  %constant.9 = s32[]{:T(128)} constant(3)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.3), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%i.1, %constant.9), direction=LT, metadata={op_name="lt"}
}

ENTRY %main.1 (a.1: f32[8,8], b.1: pred[16]) -> f32[8,8] {
  %while.1 = (s32[], f32[2,4]{1,0}) while(%t.1), condition=%condition, body=%body
  %ar.1 = (f32[8,8]{1,0:T(8,128)}, f32[]{:T(128)}) all-reduce-start(%a.1, %c.1), to_apply=%add.1
  %ar.2 = (f32[8,8]{1,0:T(8,128)}, f32[]{:T(128)}) all-reduce-done(%ar.1)
  %ag.1 = (f32[2,8]{1,0}, f32[8,8]{1,0}) all-gather-start(%q.1), channel_id=7, dimensions={0}
  %ag.2 = f32[8,8]{1,0} all-gather-done(%ag.1)
  %cp.1 = (s8[80]{0}, s8[80]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%r.1)
  %cp.2 = s8[80]{0} collective-permute-done(%cp.1)
  %rs.1 = f32[2,8]{1,0} reduce-scatter(%a.1), channel_id=8, to_apply=%add.1
  ROOT %aa.1 = pred[16]{0} all-to-all(%b.1), channel_id=9
}
"""


def test_collectives_are_counted_by_kind_with_their_loops():
    program = hlo.read(MODULE)
    assert program.loops == 1
    assert program.collectives == {
        "all-reduce": (3 + 1, 3 * 2 * 4 * 4 + 8 * 8 * 4 + 4),
        "all-gather": (3 + 1, 3 * 8 * 4 * 2 + 8 * 8 * 4),
        "reduce-scatter": (1, 2 * 8 * 4),
        "all-to-all": (1, 16),
        "collective-permute": (1, 80),
    }


def test_a_loop_whose_turns_are_told_counts_them():
    told = 'body=%body, backend_config={"known_trip_count":{"n":"5"}}'
    program = hlo.read(MODULE.replace("body=%body", told))
    assert program.collectives["all-reduce"].number == 5 + 1


def test_a_loop_of_unknown_turns_is_told_and_counts_once():
    program = hlo.read(MODULE.replace("constant(3)", "parameter(1)"))
    assert program.loops == 1 and program.collectives["all-reduce"].number == 1 + 1


def test_a_program_of_one_device_has_none():
    compiled = jax.jit(lambda x: x @ x).lower(jnp.ones((8, 8))).compile()
    assert hlo.read(compiled.as_text()) == ({}, 0)


def test_a_compiled_loop_is_read():
    """The text of this machine's compiler, not one written for the test."""

    def repeat(x):
        return jax.lax.fori_loop(0, 7, lambda i, y: jnp.sin(y @ y), x)

    compiled = jax.jit(repeat).lower(jnp.ones((8, 8))).compile()
    assert hlo.read(compiled.as_text()).loops == 1


# --- operations of a traced program ---


def count(function, *shapes, **options):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return arithmetic.flops(jax.jit(function).trace(*arguments).jaxpr.jaxpr, **options)


def convolve(x, kernel, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=numbers, **options
    )


def test_a_product_takes_two_operations_an_element_and_term():
    assert count(lambda a, b: a @ b, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
    assert count(lambda a, b: a @ b, (7, 3, 4), (7, 4, 5)) == 7 * 2 * 3 * 4 * 5


def test_a_loop_counts_its_turns_and_a_branch_the_dearest():
    def loop(x):
        return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=6)[0]

    def branch(x):
        return jax.lax.cond(x[0, 0] > 0, lambda y: y @ y @ y, lambda y: y @ y, x)

    def unknown(x):
        return jax.lax.while_loop(lambda y: y[0, 0] > 0, lambda y: y @ y, x)

    assert count(loop, (4, 4)) == 6 * 2 * 4**3
    assert count(unknown, (4, 4), turns=1.5) == 1.5 * 2 * 4**3
    assert count(branch, (4, 4)) == 2 * 2 * 4**3


def test_what_is_written_for_a_device_counts_on_each():
    """Three rows of devices work on two products each; another axis is the compiler's."""
    mesh = AbstractMesh((3, 2), ("member", "data"))
    split = PartitionSpec("member")

    def spread(x):
        return jax.shard_map(
            lambda row: row @ row, mesh=mesh, in_specs=split, out_specs=split,
            axis_names={"member"}, check_vma=False,
        )(x)  # fmt: skip

    assert count(spread, (6, 8, 8)) == 6 * 2 * 8**3


def test_the_gradient_of_two_layers():
    def loss(a, b, x):
        return ((x @ a) @ b).sum()

    # Forward 2; backward: of b one, of the first layer's result one, of a one.
    assert count(jax.grad(loss, (0, 1)), (8, 8), (8, 8), (8, 8)) == 5 * 2 * 8**3


@pytest.mark.parametrize(
    ("kernel", "groups", "expected"),
    [((3, 3, 6, 10), 1, 9 * 6), ((3, 3, 1, 6), 6, 9)],
    ids=["full", "depthwise"],
)
def test_a_convolution(kernel, groups, expected):
    counted = count(lambda x, k: convolve(x, k, feature_group_count=groups), (2, 8, 8, 6), kernel)
    assert counted == 2 * (2 * 8 * 8 * kernel[-1]) * expected


def test_a_dilated_input_s_zeros_are_not_counted():
    counted = count(lambda x, k: convolve(x, k, lhs_dilation=(2, 2)), (1, 4, 4, 3), (3, 3, 3, 5))
    assert counted == 2 * (7 * 7 * 5) * (9 * 3) / 4
