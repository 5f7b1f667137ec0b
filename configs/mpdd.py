r"""MPDD by the setting published for MVTec AD: 6 kinds of metal parts.

Give the folders on the command line:
    python -m stlm_jax.main --config=configs/mpdd.py --config.data.root=MPDD \
        --config.data.texture_root=dtd/images --config.teacher.checkpoint=sam_vit_h_4b8939.pth
"""

import ml_collections

from stlm_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    c = default()
    c.data.source = "mpdd"
    c.data.categories = (
        "bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes",
    )  # fmt: skip
    return c
