"""Named studies: `python -m launch.sweep --config=configs/ablations.py:components --base=FILE`.

A study is {setting: {key: value}}, its first setting what the others are compared with. What a
setting does not name is as in the base, so its first one changes nothing or what all share.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

Settings = Mapping[str, Mapping[str, Any]]

# The published files, as docs/weights.md says where to get them.
SAM = {
    "mobile_sam": "mobile_sam.pt",
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
}
MOBILE_SAM = SAM["mobile_sam"]


def get_studies(base: ml_collections.ConfigDict) -> dict[str, Settings]:
    """The studies over a base configuration, by name."""
    return {
        "components": components(),
        "teacher": teacher(base),
        "losses": losses(base),
        "student_init": student_init(base),
        "image_size": image_size(base),
        "pseudo": pseudo(base),
        "optimiser": optimiser(base),
        "batch_size": batch_size(base),
    }


def components() -> Settings:
    """What each part of the model is worth."""
    return {
        "whole": {},
        "plain_only": {"student.streams": "plain"},
        "denoising_only": {"student.streams": "denoising"},
        "without_fa": {"student.fa": False},
        "separate_decoders": {"student.decoder": "separate"},
        "level_1": {"student.levels": "1"},
        "level_2": {"student.levels": "2"},
    }


def teacher(base: ml_collections.ConfigDict) -> Settings:
    """Whom the streams imitate; SAM's features have 256 channels, which another student lacks."""
    own: dict[str, dict[str, Any]] = {"base": {}} if base.teacher.name not in SAM else {}
    new = {"student.checkpoint": "", "student.init": "random"} if own else {}
    sams = {
        name: {"teacher.name": name, "teacher.checkpoint": file, **new}
        for name, file in reversed(SAM.items())
    }
    return {
        **own,
        **sams,
        "random": {"teacher.checkpoint": "random"},
        "none": {"teacher.checkpoint": "none"},
    }


def losses(base: ml_collections.ConfigDict) -> Settings:
    """Each weight without, halved and doubled; the focal loss's γ."""
    weights = {
        f"{term}_{name}": {f"loss.{term}_weight": factor * base.loss[f"{term}_weight"]}
        for term in ("cosine", "focal", "l1")
        for name, factor in (("off", 0.0), ("half", 0.5), ("double", 2.0))
    }
    gammas = {f"gamma_{g}": {"loss.focal_gamma": float(g)} for g in (0, 2, 6)}
    return {"base": {}, **weights, **gammas}


def student_init(base: ml_collections.ConfigDict) -> Settings:
    """What the student starts from, with the small SAM of the demo or MobileSAM."""
    sam = "demo" if base.teacher.name == "demo" else MOBILE_SAM
    found: dict[str, dict[str, Any]] = {
        "random": {"student.checkpoint": "", "student.init": "random"},
        "decoder": {"student.checkpoint": sam, "student.init": "random"},
        "encoders_and_decoder": {"student.checkpoint": sam, "student.init": "mobile_sam"},
        "undecided_map": {
            "student.checkpoint": sam,
            "student.init": "mobile_sam",
            "student.map_init_scale": 0.1,
        },
    }
    if base.teacher.name == "demo":
        found["demo_student"] = {"student.checkpoint": "demo_student", "student.init": "random"}
    return found


def image_size(base: ml_collections.ConfigDict) -> Settings:
    """The side of what the networks see; metrics are taken at the base's for all."""
    measured = {"evaluate.resolution": str(base.image_size)}
    sides = [base.image_size // part for part in (1, 2, 4)]
    return {
        f"{side}px": {"image_size": side, **measured}
        for side in sides
        if side >= 64 and side % 16 == 0
    }


def pseudo(base: ml_collections.ConfigDict) -> Settings:
    """How pseudo-anomalies are made."""
    least, most = base.pseudo.perlin_min_exponent, base.pseudo.perlin_max_exponent
    return {
        "base": {},
        "large_blobs": {"pseudo.perlin_max_exponent": max(least, most - 2)},
        "small_blobs": {"pseudo.perlin_min_exponent": min(least + 2, most)},
        "more_area": {"pseudo.perlin_threshold": 0.3},
        "opaque": {"pseudo.beta_min": 0.0, "pseudo.beta_max": 0.0},
        "faint": {"pseudo.beta_min": 0.5, "pseudo.beta_max": 0.9},
        "never_clean": {"pseudo.clean_probability": 0.0},
        "half_clean": {"pseudo.clean_probability": 0.5},
        "mostly_clean": {"pseudo.clean_probability": 0.8},
        "mask_of_all": {"pseudo.visible_difference": 0.0},
        "few_textures": {"data.texture_count": max(1, base.data.texture_count // 16)},
    }


def optimiser(base: ml_collections.ConfigDict) -> Settings:
    """Rates, the cosine, and how much is remembered."""
    rates = {
        f"{name}_{word}": {f"optimizer.{key}": float(f"{factor * base.optimizer[key]:.4g}")}
        for name, key in (
            ("adam", "learning_rate"),
            ("residual", "residual_learning_rate"),
            ("head", "head_learning_rate"),
        )
        for word, factor in (("third", 1 / 3), ("triple", 3.0))
    }
    other = "none" if base.optimizer.decay == "cosine" else "cosine"
    return {
        "base": {},
        **rates,
        f"decay_{other}": {"optimizer.decay": other},
        "b1_torch": {"optimizer.b1": 0.9},
        "no_momentum": {"optimizer.momentum": 0.0},
        "no_weight_decay": {"optimizer.weight_decay": 0.0},
    }


def batch_size(base: ml_collections.ConfigDict) -> Settings:
    """Images a step, of which there are as many in all as in the base."""
    own = base.train.batch_size
    steps = {"train.steps": base.train.steps} if base.train.steps else {}
    steps |= {f"train.steps_of.{name}": n for name, n in base.train.steps_of.items()}
    sizes = [own, *(size for size in (1, 2, 4, 8) if size != own)]
    return {
        f"batch_{size}": {
            "train.batch_size": size,
            **{key: max(1, round(number * own / size)) for key, number in steps.items()},
        }
        for size in sizes
    }
