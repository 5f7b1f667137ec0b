r"""MVTec LOCO AD by the setting published for MVTec AD: 5 categories.

Give the folders on the command line:
    python -m stlm_jax.main --config=configs/mvtec_loco.py --config.data.root=mvtec_loco \
        --config.data.texture_root=dtd/images --config.teacher.checkpoint=sam_vit_h_4b8939.pth
"""

import ml_collections

from stlm_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    c = default()
    c.data.source = "mvtec_loco"
    c.data.categories = (
        "breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors",
    )  # fmt: skip
    return c
