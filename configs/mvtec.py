r"""The published setting on MVTec AD: 15 categories, one model each, SAM ViT-H as the teacher.

Give the folders on the command line:
    python -m stlm_jax.main --config=configs/mvtec.py --config.data.root=mvtec_ad \
        --config.data.texture_root=dtd/images --config.teacher.checkpoint=sam_vit_h_4b8939.pth
"""

import ml_collections

from stlm_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    return default()
