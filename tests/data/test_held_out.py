"""Which good images are kept from training, and that all who ask are told the same."""

import re

import numpy as np
import pytest
from trees import write_files

from stlm_jax.commands import check_data
from stlm_jax.config import default
from stlm_jax.data import dataset
from stlm_jax.data.held_out import hold_out
from stlm_jax.data.records import Record
from stlm_jax.data.sources.registry import open_source
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse
from stlm_jax.training.train import total_steps


def tree(root, count=10, more=""):
    names = "\n".join(f"nut/train/good/{index:03}.png" for index in range(count))
    return write_files(root, f"{names}\nnut/test/good/000.png\n{more}")


def config(root, share, source="mvtec_ad", seed=0):
    c = default()
    c.data.source, c.data.root, c.data.categories = source, str(root), ("nut",)
    c.calibration.held_out, c.seed = share, seed
    return c


def names(c, split):
    return [record.image.name for record in dataset.split_of(c, "nut", split)]


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(10, 0.0, 0), (10, 0.2, 2), (10, 0.25, 2), (10, 0.001, 1), (10, 0.99, 9), (2, 0.9, 1),
     (1, 0.5, 0)],
)  # fmt: skip
def test_a_share_is_held_out_and_every_image_is_in_one_split(tmp_path, count, share, held):
    c = config(tree(tmp_path, count), share)
    train, out = names(c, "train"), names(c, "held_out")
    assert len(out) == held and len(train) == count - held
    assert sorted(train + out) == [f"{index:03}.png" for index in range(count)]
    assert names(c, "test") == ["000.png"]


def test_the_choice_depends_on_seed_and_category_alone(tmp_path):
    chosen = names(config(tree(tmp_path / "a"), 0.3), "held_out")
    assert chosen == names(config(tree(tmp_path / "b" / "deeper"), 0.3), "held_out")
    assert chosen != names(config(tmp_path / "a", 0.3, seed=1), "held_out")
    records = open_source(config(tmp_path / "a", 0.3)).scan("nut").records
    shuffled = [records[index] for index in np.random.default_rng(0).permutation(len(records))]

    def held(records, category="nut"):
        found = hold_out(records, 0.3, 0, category)
        return {record.image.name for record in found if record.split == "held_out"}

    assert held(shuffled) == set(chosen) == held(records)
    assert held(records, "bolt") != set(chosen)


def test_over_seeds_every_image_has_its_turn(tmp_path):
    records = open_source(config(tree(tmp_path), 0.2)).scan("nut").records
    times = dict.fromkeys((record.image for record in records if record.split == "train"), 0)
    for seed in range(500):
        for record in hold_out(records, 0.2, seed, "nut"):
            times[record.image] = times.get(record.image, 0) + (record.split == "held_out")
    counts = np.array([times[record.image] for record in records if record.split == "train"])
    assert counts.sum() == 1000 and np.all(np.abs(counts - 100) < 40)  # 4.5 standard deviations


def test_a_validation_split_of_its_own_takes_their_place(tmp_path):
    root = tree(tmp_path, more="nut/validation/good/000.png\nnut/validation/dent/000.png")
    c = config(root, 0.3, "folder")
    assert names(c, "held_out") == [] and len(names(c, "train")) == 10
    found = dataset.split_of(c, "nut", "validation")
    assert [(record.defect, record.label, record.mask) for record in found] == [
        ("dent", 1, None),
        ("good", 0, None),
    ]
    (root / "nut/validation/good/000.png").unlink()
    assert len(names(c, "held_out")) == 3  # defects alone give no good image


def test_images_of_other_folders_with_the_same_name_are_told_apart(tmp_path):
    records = [
        Record(tmp_path / place / f"{index}.png", None, 0, "good", "nut", "train")
        for place in "ab"
        for index in range(5)
    ]
    assert sum(r.split == "held_out" for r in hold_out(records, 0.1, 0, "nut")) == 1


def test_a_set_in_array_records_has_the_same_choice(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    from stlm_jax.commands.build_tfds import build

    raw = config(tree(tmp_path / "raw"), 0.3)
    build("mvtec_ad", str(tmp_path / "raw"), str(tmp_path / "tfds"), "parts")
    stored = config(tmp_path / "tfds" / "parts", 0.3, "tfds")
    for split in ("train", "held_out"):
        assert names(stored, split) == names(raw, split) and names(raw, split)


# --- who has to agree ---

CONFIG = """
from stlm_jax.config import default


def get_config():
    c = default()
    c.data.root, c.data.categories = {root!r}, ("nut",)
    c.train.batch_size = 4
    return c
"""


def settings(tmp_path, *options):
    file = tmp_path / "nut.py"
    file.write_text(CONFIG.format(root=str(tmp_path / "data")))
    return ["main", f"--config={file}", *options]


def test_the_check_of_the_data_and_the_steps_count_what_is_left(tmp_path, capsys):
    tree(tmp_path / "data")
    argv = settings(tmp_path, "--config.calibration.held_out=0.6")
    assert check_data.main(argv) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\| nut +\| train +\| good +\| +4 \|", printed)
    assert re.search(r"\| nut +\| held_out +\| good +\| +6 \|", printed)
    c = parse(argv).config
    assert total_steps(c, "nut", len(dataset.split_of(c, "nut", "train"))) == c.train.epochs

    argv = settings(tmp_path, "--config.calibration.held_out=0.7")
    assert check_data.main(argv) == 1
    expected = "nut: 3 training images are fewer than config.train.batch_size=4"
    assert expected in capsys.readouterr().out
    with pytest.raises(UserError, match=expected):
        dataset.check(parse(argv).config)


def test_an_unreadable_image_that_is_held_out_is_an_error(tmp_path, capsys):
    tree(tmp_path / "data")
    argv = settings(tmp_path, "--config.calibration.held_out=0.2")
    out = dataset.split_of(parse(argv).config, "nut", "held_out")
    out[0].image.write_text("no image")
    assert check_data.main(argv) == 1
    assert re.search(rf"error: unreadable: cannot read {out[0].image}", capsys.readouterr().out)
