"""The folder layout of MVTec AD (Bergmann et al., CVPR 2019).

<root>/<category>/train/good/*.png
<root>/<category>/test/<good or defect>/*.png
<root>/<category>/ground_truth/<defect>/<stem>_mask.png
"""

from stlm_jax.data.layout import Tree

MASK = "ground_truth/<defect>/<name>_mask.png"

_TREE = Tree()
find_categories, scan, read_category = _TREE.find_categories, _TREE.scan, _TREE.read_category
