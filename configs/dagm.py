r"""DAGM 2007 by the setting published for MVTec AD: 10 classes, trained without defects.

Give the folders on the command line:
    python -m stlm_jax.main --config=configs/dagm.py --config.data.root=dagm2007 \
        --config.data.texture_root=dtd/images --config.teacher.checkpoint=sam_vit_h_4b8939.pth
"""

import ml_collections

from stlm_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    c = default()
    c.data.source = "dagm"
    c.data.categories = tuple(f"Class{number}" for number in range(1, 11))
    return c
