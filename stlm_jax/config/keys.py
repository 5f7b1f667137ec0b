"""Every configuration key in one table: default, range, reason, and what a change of it means.

"Published" is the paper or its PyTorch code; a default that is not says why it is what it is.
"""

from typing import Any, NamedTuple

from stlm_jax.config.rules import (
    ANY,
    DTYPE,
    FILE,
    MOST,
    TRAIN,
    Rule,
    at_least,
    below,
    between,
    one_of,
    range_of,
)

MAX_PERLIN_EXPONENT = 6  # the table of gradients is made for lattices of up to 2^6 cells an axis

# What another value makes of a work folder that was trained before:
TRAINING = "training"  # another training, which is refused
LENGTH = "length"  # a longer or a shorter one, if the rates are constant
PRESENCE = "presence"  # another one if it was empty or zero and is not, or the other way round
NOTHING = "nothing"  # the same training


class Key(NamedTuple):
    """One key.

    Attributes:
        default: its type is the key's.
        rule: what it may be.
        reason: what it is, and where the default is from.
        changes: `TRAINING`, `LENGTH`, `PRESENCE` or `NOTHING`.
    """

    default: Any
    rule: Rule
    reason: str
    changes: str = TRAINING


MVTEC_AD = (  # its categories
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut",
    "pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip
METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")

LARGEST = 16384  # pixels, sixteen times the published side

_RESOLUTION = Rule(
    lambda v: v in ("image_size", "native") or (v.isdecimal() and 16 <= float(v) <= LARGEST),
    f"must be image_size, native or a number of pixels in 16..{LARGEST}, such as 256",
)
_IMAGE_SIZE = Rule(
    lambda v: 32 <= v <= LARGEST and v % 16 == 0, f"must be a multiple of 16 in 32..{LARGEST}"
)
_QUANTILE = Rule(lambda v: 0 < v <= 1, "must be above 0 and at most 1")
_TILE = Rule(lambda v: v == 0 or 32 <= v <= MOST, f"must be 0, or 32 or more, at most {MOST}")
_SIDE = Rule(lambda v: v == -1 or 1 <= v <= MOST, "must be -1, or 1 or more")
_MOST_SEED = 2**32 - 1


def _is_seed(text: str) -> bool:
    digits = text.strip()  # so many that Python refuses to read them are none either
    return digits.isdecimal() and len(digits) <= len(str(_MOST_SEED)) and int(digits) <= _MOST_SEED


_SEEDS = Rule(
    lambda v: all(map(_is_seed, v.split(","))) if v else True,
    "must be whole numbers below 2**32 with commas between, such as 0,1,2",
)
_ROTATION = one_of("none", "small", "right_angles")
_PRECISIONS = one_of("default", "high", "highest")
_REMAT = one_of("none", "products", "blocks")
_TEACHERS = one_of("vit_b", "vit_l", "vit_h", "mobile_sam", "demo", "vit_tiny")
_ENCODERS = one_of("tiny_vit_5m", "tiny_vit_demo", "tiny_vit_test")
_STREAMS = one_of("both", "plain", "denoising")
_DEPTH = Rule(
    lambda v: v in (TRAIN, DTYPE, FILE) or range_of(v) is not None,
    f"must be {TRAIN}, {DTYPE}, {FILE} or LOW,HIGH such as 0,4095",
)
_MASKS = one_of("auto", "nonzero", "threshold", "alpha", "palette")
_SOURCES = one_of(
    "mvtec_ad", "visa", "dagm", "mvtec_loco", "mvtec_ad2", "btad", "mpdd", "ksdd2", "folder", "tfds"
)

KEYS: dict[str, Key] = {
    "seed": Key(0, between(0, _MOST_SEED), "of all that is drawn; the published code has none"),
    "image_size": Key(1024, _IMAGE_SIZE, "pixels; published, SAM's input size"),
    "dtype": Key("float32", one_of("float32", "bfloat16"), "of activations, not of parameters"),
    "precision": Key("default", _PRECISIONS, "of products of float32; default: the device's own"),
    "remat": Key("products", _REMAT, "what training keeps; blocks: least memory", NOTHING),
    # Files to train and to test on.
    "data.source": Key("mvtec_ad", _SOURCES, "the layout on disk, see data/sources"),
    "data.root": Key("", ANY, "the folder that holds the categories", NOTHING),
    "data.categories": Key(MVTEC_AD, ANY, "a model each; all: whatever root holds", NOTHING),
    "data.train_dir": Key("", ANY, "of source folder: good images, in no layout", NOTHING),
    "data.test_good_dir": Key("", ANY, "likewise: further good ones; may be empty", NOTHING),
    "data.test_defect_dir": Key("", ANY, "likewise: defective ones, by type or directly", NOTHING),
    "data.mask_dir": Key("", ANY, "likewise: masks of the same names, or with _mask", NOTHING),
    "data.csv": Key("", ANY, "likewise, in place of these: a table of images", NOTHING),
    "data.rotation.default": Key("none", _ROTATION, "small: ±5°; right_angles: n·90° ± 5°"),
    "data.geometry": Key(
        "squash", one_of("squash", "pad"), "published: squash; pad fills with 114"
    ),
    "data.depth": Key("train", _DEPTH, "of 16 bits and floats: what is black and white; see docs"),
    "data.mask": Key("auto", _MASKS, "what a mask's values mean, see docs/data.md", NOTHING),
    "data.on_error": Key("raise", one_of("raise", "skip"), "at an unreadable image", NOTHING),
    "data.cache_gib": Key(8.0, at_least(0.0), "of decoded images kept in memory", NOTHING),
    "data.demo": Key(False, ANY, "draw the demo set to data.root first", NOTHING),
    "data.texture_root": Key("", ANY, "a folder (published: DTD); tfds:dtd; empty: photographs"),
    "data.texture_count": Key(256, at_least(1), "textures on the device, drawn by seed"),
    # Networks and what they start from.
    "teacher.name": Key("vit_h", _TEACHERS, "published: SAM ViT-H"),
    "teacher.checkpoint": Key("", ANY, "weights file | demo | random (untrained) | none"),
    "teacher.cache_gib": Key(
        4.0, at_least(0.0), "of clean features kept, in bfloat16; 0: none, in float32", PRESENCE
    ),
    "teacher.store": Key("", ANY, "a folder of commands/teacher_store.py to train from", PRESENCE),
    "teacher.store_variants": Key(
        8, at_least(1), "pseudo-anomalous ones an image that are written to it", NOTHING
    ),
    "teacher.sharding": Key(
        "replicated", one_of("replicated", "fsdp"), "fsdp: each device holds a part of it", NOTHING
    ),
    "student.encoder": Key("tiny_vit_5m", _ENCODERS, "published: MobileSAM's TinyViT"),
    "student.checkpoint": Key(
        "", ANY, "a MobileSAM's or demo: decoder; an STLM's, demo_student: all"
    ),
    "student.init": Key("random", one_of("random", "mobile_sam"), "of encoders; published: random"),
    "student.streams": Key("both", _STREAMS, "published; else FA sees the features of one"),
    "student.decoder": Key("shared", one_of("shared", "separate"), "published: of both streams"),
    "student.levels": Key("both", one_of("both", "1", "2"), "of features; published; 2: decoder's"),
    "student.fa": Key(True, ANY, "published; else the map is of cosine distances, FA untrained"),
    "student.segmentation_channels": Key(128, at_least(1), "published: width of the FA module"),
    "student.map_init_scale": Key(1.0, at_least(0.0), "published; less unsaturates FA's sigmoid"),
    # Training.
    "train.batch_size": Key(2, at_least(1), "published"),
    "train.accumulate": Key(
        1, at_least(1), "parts of a batch, one after the other; published: 1; needs less memory"
    ),
    "train.batch_norm": Key(
        "global",
        one_of("global", "per_device"),
        "of what the statistics are; global: the same on any number of devices; published: one",
    ),
    "train.epochs": Key(200, at_least(0), "published; the last partial batch is dropped", LENGTH),
    "train.steps": Key(0, at_least(0), "when positive, replaces epochs", LENGTH),
    "optimizer.learning_rate": Key(5e-4, at_least(0.0), "published: Adam, all but FA"),
    "optimizer.b1": Key(0.5, below(1), "published"),
    "optimizer.b2": Key(0.999, below(1), "published"),
    "optimizer.residual_learning_rate": Key(0.1, at_least(0.0), "published: SGD, FA's res blocks"),
    "optimizer.head_learning_rate": Key(0.01, at_least(0.0), "published: SGD, FA's ASPP head"),
    "optimizer.momentum": Key(0.9, below(1), "published, of SGD"),
    "optimizer.weight_decay": Key(1e-4, at_least(0.0), "published, of SGD; coupled as in torch"),
    "optimizer.decay": Key("none", one_of("none", "cosine"), "published: none; cosine: to 0"),
    "loss.cosine_weight": Key(1.0, at_least(0.0), "paper: of the four guidance terms' sum"),
    "loss.focal_weight": Key(1.0, at_least(0.0), "paper"),
    "loss.l1_weight": Key(1.0, at_least(0.0), "paper"),
    "loss.focal_gamma": Key(4.0, at_least(0.0), "published"),
    "pseudo.clean_probability": Key(0.5, between(0, 1), "published: samples with an empty mask"),
    "pseudo.beta_min": Key(0.0, between(0, 1), "published: opacity of the original under a mask"),
    "pseudo.beta_max": Key(0.8, between(0, 1), "published"),
    "pseudo.perlin_min_exponent": Key(0, at_least(0), "published: the lattice has 2^k cells, k"),
    "pseudo.perlin_max_exponent": Key(5, between(0, MAX_PERLIN_EXPONENT), "uniform in 0..5"),
    "pseudo.perlin_threshold": Key(0.5, between(0, 1), "published; lower makes larger masks"),
    "pseudo.visible_difference": Key(
        0.0, below(255), "published: mask all; else what changed more"
    ),
    # Several trainings in one program.
    "mesh.member": Key(-1, _SIDE, "devices to spread trainings over; -1: what is left", NOTHING),
    "mesh.data": Key(1, _SIDE, "devices that share a batch; published: 1; -1: all", NOTHING),
    "ensemble.seeds": Key("", _SEEDS, "a run each, such as 0,1,2; empty: seed alone", NOTHING),
    "ensemble.inner": Key(
        "map", one_of("map", "vmap"), "runs on a device: map one by one, the CPU's way", NOTHING
    ),
    "ensemble.groups": Key(
        1, at_least(1), "categories and seeds a device trains at a time; more takes memory", NOTHING
    ),
    "checkpoint.every_steps": Key(500, at_least(1), "also at the end and when stopped", NOTHING),
    "checkpoint.every_minutes": Key(
        15.0, at_least(0.0), "since the last save: the most a killed run loses; 0: none", NOTHING
    ),
    "checkpoint.keep": Key(2, at_least(1), "newest ones; the last is the result", NOTHING),
    "log.every_steps": Key(20, at_least(1), "of metrics.jsonl and the progress line", NOTHING),
    "log.images_every_steps": Key(1000, at_least(0), "pictures in TensorBoard; 0: none", NOTHING),
    "profile.start": Key(0, at_least(0), "first step that jax.profiler records", NOTHING),
    "profile.steps": Key(0, at_least(0), "how many it records; 0: none", NOTHING),
    # Evaluation and prediction.
    "evaluate.batch_size": Key(4, at_least(1), "images in a call of the program", NOTHING),
    "evaluate.score_top_k": Key(100, at_least(1), "published: pixels a score is mean of", NOTHING),
    "evaluate.metrics": Key(METRICS, ANY, "names in metrics/registry.py", NOTHING),
    "evaluate.panels": Key(12, at_least(0), "pictures a category", NOTHING),
    "evaluate.resolution": Key("image_size", _RESOLUTION, "published: image_size", NOTHING),
    "evaluate.latency_runs": Key(10, at_least(0), "timed batches, the median counts", NOTHING),
    "calibration.held_out": Key(0.0, below(1), "published: train on all; else kept for thresholds"),
    "calibration.quantile": Key(
        0.95, _QUANTILE, "of good scores: what 19 images can tell", NOTHING
    ),
    "calibration.pixel_quantile": Key(0.999, between(0.9, 1), "of good images' pixels", NOTHING),
    "report.gallery": Key(60, at_least(0), "panels a category: 15 stay below 40 MB", NOTHING),
    "report.thumbnail": Key(256, between(32, 1024), "pixels: four pictures fit a screen", NOTHING),
    "predict.input": Key("", ANY, "an image, or a folder with its sub-folders", NOTHING),
    "predict.output": Key("", ANY, "a folder; empty: WORKDIR/results/predict/CATEGORY", NOTHING),
    "predict.overwrite": Key(False, ANY, "replace what lies in the output folder", NOTHING),
    "predict.tile": Key(0, _TILE, "side of overlapping tiles in pixels; 0: whole images", NOTHING),
}

# Groups whose further keys are names, of categories or of runs.
BY_CATEGORY: dict[str, Key] = {
    "data.rotation": Key("none", _ROTATION, "the policy of one category"),
    "ensemble.settings": Key("", ANY, "a run each: KEY=VALUE KEY=VALUE over the others", NOTHING),
    "train.steps_of": Key(1, at_least(1), "steps of one category, in place of train.steps", LENGTH),
}
