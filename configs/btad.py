r"""BTAD by the setting published for MVTec AD: 3 products.

Give the folders on the command line:
    python -m stlm_jax.main --config=configs/btad.py --config.data.root=BTech_Dataset_transformed \
        --config.data.texture_root=dtd/images --config.teacher.checkpoint=sam_vit_h_4b8939.pth
"""

import ml_collections

from stlm_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    c = default()
    c.data.source = "btad"
    c.data.categories = ("01", "02", "03")
    return c
