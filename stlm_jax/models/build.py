"""The models by name."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import ml_collections

from stlm_jax.models.components import Components
from stlm_jax.models.image_encoder import ImageEncoderViT
from stlm_jax.models.mask_decoder import MaskDecoder
from stlm_jax.models.prompt_encoder import PromptEncoder
from stlm_jax.models.sam import Sam
from stlm_jax.models.segmentation import Segmentation
from stlm_jax.models.stlm import SharedDecoder, Stlm
from stlm_jax.models.tiny_vit import TinyViT


@dataclasses.dataclass(frozen=True)
class SamVariant:
    """One teacher: its encoder and the widths that the student's decoder must share."""

    encoder: type
    encoder_arguments: dict[str, Any]
    channels: int = 256
    decoder_mlp_dim: int = 2048


ENCODERS: dict[str, dict[str, Any]] = {
    "tiny_vit_5m": {},  # MobileSAM's, the published student
    "tiny_vit_demo": dict(
        embed_dims=(16, 48, 96, 160), depths=(1, 1, 4, 1), heads=(1, 2, 4, 5), windows=(8, 8, 8, 8)
    ),
    "tiny_vit_test": dict(
        embed_dims=(8, 16, 16, 32), depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), windows=(7, 7, 14, 7)
    ),
}

SAM_VARIANTS = {
    "vit_b": SamVariant(
        ImageEncoderViT, dict(embed_dim=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11))
    ),
    "vit_l": SamVariant(
        ImageEncoderViT, dict(embed_dim=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23))
    ),
    "vit_h": SamVariant(
        ImageEncoderViT, dict(embed_dim=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31))
    ),
    "mobile_sam": SamVariant(TinyViT, ENCODERS["tiny_vit_5m"]),
    "demo": SamVariant(TinyViT, ENCODERS["tiny_vit_demo"], channels=128, decoder_mlp_dim=256),
    "vit_tiny": SamVariant(
        ImageEncoderViT,
        dict(embed_dim=32, depth=2, heads=2, global_blocks=(1,), window=3, trained_size=64),
        channels=32,
        decoder_mlp_dim=64,
    ),
}


def _decoder(variant: SamVariant, dtype):
    return dict(
        prompt_encoder=PromptEncoder(variant.channels),
        mask_decoder=MaskDecoder(variant.channels, variant.decoder_mlp_dim, dtype),
    )


def build_sam(name: str, dtype=jnp.float32) -> Sam:
    """The SAM variant `name`, one of `SAM_VARIANTS`."""
    variant = SAM_VARIANTS[name]
    encoder = variant.encoder(
        **variant.encoder_arguments, out_channels=variant.channels, dtype=dtype
    )
    return Sam(encoder, **_decoder(variant, dtype))


def build_stlm(config: ml_collections.ConfigDict, devices: int = 1) -> Stlm:
    """The two-stream model of a configuration; its features are as wide as the teacher's.

    Args:
        config: of the run.
        devices: over how many a batch of training is spread.
    """
    dtype = jnp.dtype(config.dtype)
    variant = SAM_VARIANTS[config.teacher.name]
    encoder = dict(
        **ENCODERS[config.student.encoder],
        out_channels=variant.channels,
        dtype=dtype,
        remat=config.remat,
    )
    return Stlm(
        encoderT=TinyViT(**encoder),
        encoderS=TinyViT(**encoder),
        model=SharedDecoder(**_decoder(variant, dtype)),
        modelS=SharedDecoder(**_decoder(variant, dtype))
        if config.student.decoder == "separate"
        else None,
        segmentation=Segmentation(config.student.segmentation_channels, dtype),
        shares=devices if config.train.batch_norm == "per_device" else 1,
        components=Components.of(config.student),
    )
