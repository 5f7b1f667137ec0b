"""The PyTorch teacher that ours is measured beside computes what ours computes."""

import numpy as np
import pytest
import torch
from golden_vectors import sam_variables

from benchmarks.torch_sam import ImageEncoderViT, Sam
from stlm_jax.models.build import SAM_VARIANTS, build_sam
from stlm_jax.models.sam import PIXEL_MEAN, PIXEL_STD
from stlm_jax.runtime.compilation import jit


@pytest.mark.usefixtures("highest_precision")
def test_features_are_those_of_our_teacher(relative_error):
    variant = SAM_VARIANTS["vit_tiny"]
    widths = variant.encoder_arguments
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        widths["embed_dim"], widths["depth"], widths["heads"], widths["global_blocks"],
        widths["window"], widths["trained_size"] // 16, variant.channels,
    )  # fmt: skip
    sam = Sam(encoder, variant.channels, variant.decoder_mlp_dim).eval()
    with torch.no_grad():  # zeros and ones would hide what is added and what is scaled
        for tensor in sam.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
    tensors = {name.removeprefix("decoder."): x.numpy() for name, x in sam.state_dict().items()}
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)

    ours = build_sam("vit_tiny")
    levels = jit(ours.apply)(sam_variables(tensors, ours), image)
    pixels = (torch.from_numpy(image) - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)
    with torch.no_grad():
        expected = sam(pixels.permute(0, 3, 1, 2))

    for level, torchs in zip(levels, expected, strict=True):
        assert relative_error(np.moveaxis(np.asarray(level), -1, 1), torchs.numpy()) <= 1e-5
