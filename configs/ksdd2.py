r"""KolektorSDD2 by the setting published for MVTec AD, trained without defects.

Give the folders on the command line:
    python -m stlm_jax.main --config=configs/ksdd2.py --config.data.root=KolektorSDD2 \
        --config.data.texture_root=dtd/images --config.teacher.checkpoint=sam_vit_h_4b8939.pth
"""

import ml_collections

from stlm_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    c = default()
    c.data.source = "ksdd2"
    c.data.categories = ("ksdd2",)
    return c
