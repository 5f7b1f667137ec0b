"""Which batches devices can share."""

import pytest

from stlm_jax.config import default
from stlm_jax.runtime.errors import UserError
from stlm_jax.training.shares import check_shares, warn_of_other_shares


def settings(batch_size, accumulate=1, batch_norm="global"):
    config = default()
    config.train.update(batch_size=batch_size, accumulate=accumulate, batch_norm=batch_norm)
    return config


@pytest.mark.parametrize(
    ("config", "devices", "least"),
    [(settings(2), 4, 4), (settings(6), 4, 8), (settings(4, 2), 4, 8), (settings(9, 3), 2, 12)],
)
def test_a_batch_that_devices_cannot_share_is_refused(config, devices, least):
    with pytest.raises(UserError, match=rf"batch_size=\d: must be a multiple of .* take {least},"):
        check_shares(config, devices)
    config.train.batch_size = least
    check_shares(config, devices)


@pytest.mark.parametrize(
    ("config", "devices", "warned"),
    [
        (settings(8), 8, False),
        (settings(8, 8), 1, True),
        (settings(8, 1, "per_device"), 8, True),
        (settings(8, 2, "per_device"), 4, True),
        (settings(8, 2, "per_device"), 2, False),
        (settings(8, 1, "per_device"), 1, False),
        (settings(1), 1, False),  # the user's own choice
    ],
)
def test_one_image_at_a_time_is_warned_of(config, devices, warned, capsys):
    check_shares(config, devices)
    assert ("one image at a time" in capsys.readouterr().err) == warned


def test_other_shares_than_before_are_warned_of(capsys):
    config = default()
    for mode, before, warned in (
        ("global", 4, False),
        ("per_device", None, False),
        ("per_device", 2, False),
        ("per_device", 4, True),
    ):
        config.train.batch_norm = mode
        warn_of_other_shares(config, before, 2)
        said = capsys.readouterr().err
        assert ("set config.mesh.data=4" in said) == warned
