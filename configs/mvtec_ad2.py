r"""MVTec AD 2 by the setting published for MVTec AD: 8 categories, public test split.

Give the folders on the command line:
    python -m stlm_jax.main --config=configs/mvtec_ad2.py --config.data.root=mvtec_ad_2 \
        --config.data.texture_root=dtd/images --config.teacher.checkpoint=sam_vit_h_4b8939.pth
"""

import ml_collections

from stlm_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    c = default()
    c.data.source = "mvtec_ad2"
    c.data.categories = (
        "can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts",
    )  # fmt: skip
    return c
