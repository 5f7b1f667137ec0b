"""Whether devices can share the batches of a training."""

import ml_collections

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note


def check_shares(config: ml_collections.ConfigDict, devices: int) -> None:
    """Refuses a batch that so many devices cannot share, and warns of one that teaches little.

    Args:
        config: of the run.
        devices: over how many a batch is spread, along the mesh's axis `data`.
    """
    train = config.train
    parts = train.accumulate * devices
    if train.batch_size % parts:
        raise UserError(
            f"--config.train.batch_size={train.batch_size}: must be a multiple of {parts}, as "
            f"{devices} devices share a batch in train.accumulate={train.accumulate} parts: take "
            f"{-(-train.batch_size // parts) * parts}, or fewer devices with config.mesh.data"
        )
    seen = train.batch_size // train.accumulate
    if devices > 1 and train.batch_norm == "per_device":
        seen //= devices
    if seen == 1 and train.batch_size > 1:
        note(
            f"warning: config.train.accumulate={train.accumulate} and train.batch_norm="
            f"{train.batch_norm} leave batch normalisation one image at a time, from which the "
            "image pooling learns nothing: take less, or global"
        )


def warn_of_other_shares(config: ml_collections.ConfigDict, before: int | None, now: int) -> None:
    """Warns where a training goes on with its batches in other shares, each with statistics.

    Args:
        config: of the run.
        before: devices that shared a batch when it was started last; None: that is not known.
        now: likewise.
    """
    if config.train.batch_norm == "per_device" and before not in (None, now):
        note(
            f"warning: config.train.batch_norm=per_device: this run was started with {before} "
            f"devices to a batch, now there are {now}, so that what is left is another training: "
            f"set config.mesh.data={before}"
        )
