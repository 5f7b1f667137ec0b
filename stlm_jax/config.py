"""Every configuration key with its published value; files in `configs/` change some of them."""

import ml_collections

MVTEC_AD_CATEGORIES = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut",
    "pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip


def default() -> ml_collections.ConfigDict:
    """The published setting on MVTec AD, key by key.

    Numbers come from the paper or the published PyTorch code where a comment says so.
    """
    c = ml_collections.ConfigDict()
    c.seed = 0  # the published code has none
    c.image_size = 1024  # pixels, SAM's input size
    c.dtype = "float32"  # of activations: float32 | bfloat16; parameters are always float32

    c.data = ml_collections.ConfigDict()
    c.data.source = "mvtec_ad"  # the layout on disk, a name in data/sources.py
    c.data.root = ""  # the folder that holds the categories
    c.data.categories = MVTEC_AD_CATEGORIES  # one model is trained for each; all: what root holds
    c.data.train_dir = ""  # of source folder: good images, where they are not in root's layout
    c.data.test_good_dir = ""  # likewise; may be empty
    c.data.test_defect_dir = ""  # likewise: defective images, in folders by type or directly
    c.data.mask_dir = ""  # likewise: their masks, under the same names, or with _mask after them
    c.data.csv = ""  # likewise, in place of all these: a table of images (data/folder_csv.py)
    c.data.rotation = ml_collections.ConfigDict()  # of training images, by category:
    c.data.rotation.default = "none"  # none | small: ±5° | right_angles: n · 90° ± 5°
    c.data.geometry = "squash"  # published: to a square | pad: keep the shape, fill with 114
    c.data.on_error = "raise"  # at a file that cannot be read | skip: leave it out and say so
    c.data.cache_gib = 8.0  # of decoded training images in memory; others are decoded on the fly
    c.data.demo = False  # write the generated demo set to data.root first, where it is not there
    c.data.texture_root = ""  # a folder of images (DTD); tfds:dtd, as TFDS has prepared it; empty:
    # scikit-image's photographs
    c.data.texture_count = 256  # textures kept on the device, drawn from the folder by seed

    c.teacher = ml_collections.ConfigDict()
    c.teacher.name = "vit_h"  # published: SAM ViT-H; vit_l | vit_b | vit_tiny | mobile_sam | demo
    c.teacher.checkpoint = ""  # weights file | demo | random (untrained) | none (no guidance)

    c.student = ml_collections.ConfigDict()
    c.student.encoder = (
        "tiny_vit_5m"  # published: MobileSAM's TinyViT; tiny_vit_demo | tiny_vit_test
    )
    c.student.checkpoint = ""  # weights file of a MobileSAM | demo: its decoder is taken over;
    # or of a whole STLM | demo_student: all of it is taken over
    c.student.init = "random"  # the encoders, published: random | mobile_sam: from the checkpoint
    c.student.segmentation_channels = 128  # published: width of the FA module
    c.student.map_init_scale = 1.0  # published; times the first weights of FA's last convolution:
    # by Kaiming's rule they saturate the sigmoid, which a short training has no time to undo

    c.train = ml_collections.ConfigDict()
    c.train.batch_size = 2  # published
    c.train.epochs = 200  # published; over the good images, last partial batch dropped
    c.train.steps = 0  # when positive, replaces epochs
    c.train.steps_of = ml_collections.ConfigDict()  # likewise, of single categories, by name

    c.optimizer = ml_collections.ConfigDict()
    c.optimizer.learning_rate = 5e-4  # published: Adam on encoders, decoder, prompt constants
    c.optimizer.b1 = 0.5  # published
    c.optimizer.b2 = 0.999  # published
    c.optimizer.residual_learning_rate = 0.1  # published: SGD on FA's residual blocks
    c.optimizer.head_learning_rate = 0.01  # published: SGD on FA's ASPP head
    c.optimizer.momentum = 0.9  # published
    c.optimizer.weight_decay = 1e-4  # published, coupled as in torch, on FA only
    c.optimizer.decay = "none"  # published: constant rates | cosine: all fall to 0 by a half
    # cosine over a category's training

    c.loss = ml_collections.ConfigDict()
    c.loss.cosine_weight = 1.0  # paper: the four guidance terms are summed; 0 trains without
    c.loss.focal_weight = 1.0  # paper
    c.loss.l1_weight = 1.0  # paper
    c.loss.focal_gamma = 4.0  # published

    c.pseudo = ml_collections.ConfigDict()
    c.pseudo.clean_probability = 0.5  # published: half of the samples keep an empty mask
    c.pseudo.beta_min = 0.0  # published: opacity of the original under the mask
    c.pseudo.beta_max = 0.8  # published
    c.pseudo.perlin_min_exponent = 0  # published: the Perlin lattice has 2^k cells an axis,
    c.pseudo.perlin_max_exponent = 5  # k uniform in 0..5
    c.pseudo.perlin_threshold = 0.5  # published; lower makes larger masks
    c.pseudo.visible_difference = 0.0  # published: the mask is all that was blended; else what is
    # within 4 pixels of a channel that changed by more than this, of 255

    c.checkpoint = ml_collections.ConfigDict()
    c.checkpoint.every_steps = 500
    c.checkpoint.keep = 2

    c.log = ml_collections.ConfigDict()
    c.log.every_steps = 20
    c.log.images_every_steps = 1000  # TensorBoard: training images as made anomalous; 0: none

    c.evaluate = ml_collections.ConfigDict()
    c.evaluate.batch_size = 4
    c.evaluate.score_top_k = 100  # published: image score = mean of the 100 largest pixels
    c.evaluate.metrics = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")
    c.evaluate.panels = 12  # pictures a category
    c.evaluate.resolution = "image_size"  # published: metrics of maps and masks of the network's
    # size | native: the images' own | a side in pixels, such as 256
    c.evaluate.latency_runs = 10  # timed batches, of which the median is the latency; 0: none

    c.calibration = ml_collections.ConfigDict()  # of the threshold, without defective images
    c.calibration.held_out = 0.0  # published: train on all; else this share of the good training
    # images is kept from training, and the threshold is not optimistic
    c.calibration.quantile = 0.95  # of good images' scores: false alarms of one good image in 20,
    # as far as 19 images can tell; 0.99 needs 99
    c.calibration.pixel_quantile = 0.999  # of good images' pixels: one in a thousand is above

    c.report = ml_collections.ConfigDict()  # results/report.html
    c.report.gallery = 60  # panels a category, the most wrong first: 15 categories below 40 MB
    c.report.thumbnail = 256  # pixels of their longer side; the panel's four fit a screen

    c.predict = ml_collections.ConfigDict()
    c.predict.input = ""  # an image or a folder of images
    c.predict.tile = 0  # when positive, side of overlapping tiles in the image's own pixels
    return c
