r"""VisA by the setting published for MVTec AD: 12 categories, as extracted or converted.

Give the folders on the command line:
    python -m stlm_jax.main --config=configs/visa.py --config.data.root=VisA_20220922 \
        --config.data.texture_root=dtd/images --config.teacher.checkpoint=sam_vit_h_4b8939.pth
"""

import ml_collections

from stlm_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    c = default()
    c.data.source = "visa"
    c.data.categories = (
        "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2",
        "pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum",
    )  # fmt: skip
    return c
