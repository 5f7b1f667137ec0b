r"""Your own images by the setting published for MVTec AD; only good ones are needed.

Either DIR/train/good, with DIR/test/good, DIR/test/<defect> and DIR/ground_truth/<defect> as far
as there are any; several parts each have such a folder inside DIR:
    python -m stlm_jax.main --config=configs/folder.py --config.data.root=DIR …
or folders of any name, all but the first optional:
    … --config.data.train_dir=OK --config.data.test_good_dir=OK2 --config.data.test_defect_dir=NOK \
        --config.data.mask_dir=MASKS --config.data.categories=mypart
or a table with the columns image, split, label, mask, defect and category:
    … --config.data.csv=images.csv
with --config.data.texture_root=dtd/images --config.teacher.checkpoint=sam_vit_h_4b8939.pth.
Parts that may lie in any direction: --config.data.rotation.default=right_angles.

A tenth of the good images is kept from training to estimate the threshold from, unless there are
others in DIR/validation/good. With defective ones in DIR/validation/<defect> the threshold is that
of the largest F1. In a table these are the rows whose split is validation.
"""

import ml_collections

from stlm_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    c = default()
    c.data.source = "folder"
    c.data.categories = ("all",)
    c.calibration.held_out = 0.1
    return c
