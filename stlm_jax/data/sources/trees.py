"""Data sets that are trees like MVTec AD's (see `layout`), each a value of one `Tree`."""

from stlm_jax.data.sources.layout import Tree, masks_named

# Bergmann et al., CVPR 2019.
MVTEC_AD = Tree().reader("ground_truth/<defect>/<name>_mask.png")

# Heckler-Kram et al., 2025: its splits with ground truth. test_private and test_private_mixed come
# without labels and are not read.
MVTEC_AD2 = Tree(
    validation="validation", test="test_public", ground_truth="test_public/ground_truth"
).reader("test_public/ground_truth/bad/<name>_mask.png")

# Mishra et al., ISIE 2021: products 01, 02 and 03, good ones in `ok`, defective ones in `ko`.
# Images and masks are .bmp or .png, and a mask's suffix need not be its image's.
BTAD = Tree(good="ok", find_masks=masks_named("")).reader("ground_truth/ko/<name>.png or .bmp")

# Jezek et al., ICUMT 2021: metal parts.
MPDD = MVTEC_AD
