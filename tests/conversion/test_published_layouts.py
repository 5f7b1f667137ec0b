"""The table and the layouts against the published manifests."""

import numpy as np
import pytest
from flax import traverse_util

from stlm_jax.config import default
from stlm_jax.models.build import ENCODERS, build_sam, build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.runtime.errors import UserError
from stlm_jax.weights import layouts, names
from stlm_jax.weights.unused import Spec, unused_tensors


def published_tensors(layout):
    """Name, shape and dtype of every tensor of a published layout."""
    stlm = layout in layouts.STLM_LAYOUTS
    model = build_stlm(default()) if stlm else build_sam(layouts.SAM_LAYOUTS[layout])
    used = layouts.used_shapes(variable_shapes(model))
    tensors = {name: Spec(shape) for name, shape in used.items()} | unused_tensors(used)
    if layout in (layouts.TWO_STREAM, layouts.SEGMENTATION):
        return layouts.split(tensors)[layout == layouts.SEGMENTATION]
    return tensors


PUBLISHED = (
    "mobile_sam", "sam_vit_b", "sam_vit_l", "sam_vit_h", "stlm_twostream", "stlm_segmentation",
)  # fmt: skip


@pytest.mark.parametrize("layout", PUBLISHED)
def test_names_and_shapes_are_the_manifest(golden, layout):
    tensors = published_tensors(layout)
    assert {name: spec.shape for name, spec in tensors.items()} == golden.load_manifest(layout)
    integers = {name for name, spec in tensors.items() if spec.dtype == np.int64}
    assert integers == {name for name in tensors if name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("layout", PUBLISHED)
def test_layouts_are_told_apart(golden, layout):
    assert layouts.detect_layout(golden.load_manifest(layout)) == layout


@pytest.mark.parametrize("layout", PUBLISHED)
def test_a_layout_is_detected_where_half_of_it_is_missing(golden, layout):
    manifest = golden.load_manifest(layout)
    for first in (0, 1):
        part = {name: manifest[name] for name in list(manifest)[first::2]}
        assert layouts.detect_layout(part) == layout


def test_the_joined_pair_is_told_from_its_halves(golden):
    pair = [golden.load_manifest(name) for name in ("stlm_twostream", "stlm_segmentation")]
    joined = layouts.join(*pair)
    assert layouts.detect_layout(joined) == "stlm"
    assert layouts.split(joined) == tuple(pair)
    config = layouts.stlm_config(joined)
    assert config.student.encoder == "tiny_vit_5m"
    assert (config.teacher.name, config.student.segmentation_channels) == ("vit_h", 128)


def test_an_unpublished_student_is_recognised(tiny_stlm):
    config = layouts.stlm_config({name: tuple(x.shape) for name, x in tiny_stlm.items()})
    assert config.student.encoder == "tiny_vit_test"
    assert (config.teacher.name, config.student.segmentation_channels) == ("vit_tiny", 16)


def test_something_else_is_refused():
    with pytest.raises(UserError, match=r"no known layout \(its 1 tensors: fc\.weight, …\)"):
        layouts.detect_layout({"fc.weight": (3, 4)})


@pytest.mark.parametrize("layout", PUBLISHED)
def test_the_pattern_of_unused_names_agrees_with_their_list(golden, layout):
    manifest = golden.load_manifest(layout)
    used = {name: shape for name, shape in manifest.items() if not names.UNUSED.search(name)}
    assert unused_tensors(used).keys() == manifest.keys() - used.keys()


@pytest.mark.parametrize("variant", ["vit_tiny", "demo"])
def test_the_table_is_one_to_one(variant):
    variables = variable_shapes(build_sam(variant))
    table = layouts.table(variables)
    assert table.keys() == traverse_util.flatten_dict(variables).keys()
    assert len(set(table.values())) == len(table)


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 3, 2, 4), (5, 1, 3, 3)])
@pytest.mark.parametrize("leaf", ["kernel", "bias"])
def test_axis_orders_are_inverse(leaf, shape):
    tensor = np.random.default_rng(0).standard_normal(shape)
    flax = names.from_torch_layout(leaf, tensor)
    assert names.torch_shape(leaf, flax.shape) == shape
    np.testing.assert_array_equal(names.to_torch_layout(leaf, flax), tensor)


def test_students_can_be_told_by_their_width():
    widths = [shape["embed_dims"][-1] for shape in ENCODERS.values() if shape]
    assert len({*widths, 320}) == len(ENCODERS)


@pytest.mark.parametrize("build", [lambda: build_stlm(default()), lambda: build_sam("vit_b")])
def test_published_names_lead_back_to_the_variables(build):
    target = variable_shapes(build())
    leaves = traverse_util.flatten_dict(target)
    for path, name in layouts.table(target).items():
        assert names.flax_path(name, len(leaves[path].shape)) == path
