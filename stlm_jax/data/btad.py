"""The folder layout of BTAD (Mishra et al., ISIE 2021): products 01, 02 and 03.

<root>/<category>/train/ok/*
<root>/<category>/test/<ok or ko>/*
<root>/<category>/ground_truth/ko/<stem>.*

Images and masks are .bmp or .png, and a mask's suffix need not be its image's.
"""

from stlm_jax.data.layout import Tree, masks_named

MASK = "ground_truth/ko/<name>.png or .bmp"

_TREE = Tree(good="ok", find_masks=masks_named(""))
find_categories, scan, read_category = _TREE.find_categories, _TREE.scan, _TREE.read_category
