"""The folder layout of MVTec AD 2 (Heckler-Kram et al., 2025): its splits with ground truth.

<root>/<category>/train/good/*.png
<root>/<category>/validation/good/*.png
<root>/<category>/test_public/<good or bad>/*.png
<root>/<category>/test_public/ground_truth/bad/<stem>_mask.png

`test_private` and `test_private_mixed` come without labels and are not read.
"""

from stlm_jax.data.layout import Tree

MASK = "test_public/ground_truth/bad/<name>_mask.png"

_TREE = Tree(
    validation="validation", test="test_public", ground_truth="test_public/ground_truth"
)  # fmt: skip
find_categories, scan, read_category = _TREE.find_categories, _TREE.scan, _TREE.read_category
