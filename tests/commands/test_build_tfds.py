"""Data sets written as TFDS does read as the raw files do; TFDS reads them, too."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from trees import NUT, write_files, write_image

from stlm_jax.commands import build_tfds, check_data
from stlm_jax.config import default
from stlm_jax.data.dataset import split_of
from stlm_jax.data.images import ImageError, load_images, load_masks, read_image
from stlm_jax.data.loader import TrainLoader
from stlm_jax.data.sources import mvtec_loco
from stlm_jax.data.sources import tfds as tfds_source
from stlm_jax.data.sources.trees import MVTEC_AD
from stlm_jax.data.textures import read_texture_bank
from stlm_jax.runtime.errors import UserError

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TREE = f"""
    {NUT}
    écrou M8/train/good/a b.png
    écrou M8/train/good/ü.bmp
    écrou M8/test/good/000.tif
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`raw` and, in `data`, what was built of it."""
    folder = tmp_path_factory.mktemp("build")
    write_files(folder / "raw", TREE)
    deep = np.arange(120, dtype=np.uint16).reshape(10, 12) * 500
    write_image(folder / "raw/nut/train/good/003.png", deep)
    transparent = np.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype=np.uint8)
    write_image(folder / "raw/nut/train/good/004.png", transparent)
    assert build_tfds.main(command(folder)) == 0
    return folder


def command(folder, *options):
    return ["build_tfds", "mvtec_ad", f"--raw={folder / 'raw'}", f"--data_dir={folder / 'data'}",
            *options]  # fmt: skip


def pair(place, category):
    raw = MVTEC_AD.scan(place / "raw", category).records
    return raw, tfds_source.scan(place / "data/mvtec_ad", category).records


@pytest.mark.parametrize("category", ["nut", "écrou M8"])
def test_records_are_those_of_the_raw_files(place, category):
    raw, stored = pair(place, category)

    def facts(record):
        return (record.split, record.defect, record.label, record.category, record.image.name,
                record.image.stem, [mask.name for mask in record.masks])  # fmt: skip

    assert sorted(map(facts, stored)) == sorted(map(facts, raw))
    assert tfds_source.find_categories(place / "data/mvtec_ad") == ["nut", "écrou M8"]


@pytest.mark.parametrize("category", ["nut", "écrou M8"])
def test_pixels_are_those_of_the_raw_files(place, category):
    raw, stored = (
        {(r.split, r.defect, r.image.name): r for r in records} for records in pair(place, category)
    )
    for key, record in raw.items():
        np.testing.assert_array_equal(
            read_image(stored[key].image, None), read_image(record.image, None)
        )
    keys = sorted(raw)
    for load in (load_images, load_masks):
        np.testing.assert_array_equal(
            load([stored[k] for k in keys], 16), load([raw[k] for k in keys], 16)
        )


def test_files_are_stored_byte_for_byte_masks_too(tmp_path):
    """Zero bytes at the end included, which an array of bytes would lose."""
    root = write_files(tmp_path / "raw", "cup/train/good/0.png\ncup/test/logical_anomalies/0.bmp")
    masks = tmp_path / "raw/cup/ground_truth/logical_anomalies/0"
    write_image(masks / "000.bmp", np.zeros((10, 12), np.uint8))
    write_image(masks / "001.bmp", np.full((10, 12), 255, np.uint8))
    (folder,) = build_tfds.build("mvtec_loco", root, tmp_path / "data", name="my_cups")
    (raw,), (stored,) = (
        [record for record in records if record.split == "test"]
        for records in (
            mvtec_loco.scan(root, "cup").records,
            tfds_source.scan(tmp_path / "data/my_cups", "cup").records,
        )
    )
    assert len(stored.masks) == 2 and folder.name == "1.0.0"
    for ours, theirs in zip((stored.image, *stored.masks), (raw.image, *raw.masks), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    assert stored.masks[0].read_bytes().endswith(b"\0")


def test_tfds_reads_it_by_itself(place):
    """Decoded by TFDS's own code, without TensorFlow."""
    import tensorflow_datasets as tfds

    source = tfds.builder("mvtec_ad/nut", data_dir=str(place / "data")).as_data_source("test")
    assert len(source) == 3
    for example in source:
        path = place / "raw" / example["path"].decode()
        assert path.parent.name == example["defect"].decode()
        assert example["label"] == (path.parent.name != "good") == len(example["masks"])
        np.testing.assert_array_equal(example["image"][..., 0], np.asarray(Image.open(path)))
        for mask in example["masks"]:
            truth = place / f"raw/nut/ground_truth/cut/{path.stem}_mask.png"
            np.testing.assert_array_equal(mask[..., 0], np.asarray(Image.open(truth)))
    assert "tensorflow" not in sys.modules


def config_of(place):
    config = default()
    config.image_size = 32
    config.data.source, config.data.root = "tfds", str(place / "data/mvtec_ad")
    config.data.categories = ("nut",)
    return config


def test_it_trains_and_is_checked_as_a_source(place, capsys):
    config = config_of(place)
    train = split_of(config, "nut", "train")
    loader = TrainLoader(load_images(train, 32), 2, seed=0)
    raw = [r for r in MVTEC_AD.scan(place / "raw", "nut").records if r.split == "train"]
    expected = TrainLoader(load_images(raw, 32), 2, seed=0)
    for _ in range(4):
        np.testing.assert_array_equal(next(loader)["image"], next(expected)["image"])
    assert check_data.check(config) == 0
    printed = capsys.readouterr().out
    assert "| nut      | train | good   |      5 |       | 9x9, 12x10 | I;16, L, RGBA |" in printed
    (warning,) = [line for line in printed.splitlines() if line.startswith("warning: ")]
    assert warning.startswith("warning: depth: nut: 1 images of more than eight bits")


def test_what_is_there_stays_and_one_category_can_be_chosen(tmp_path, capsys):
    write_files(tmp_path / "raw", TREE)
    assert build_tfds.main(command(tmp_path, "--categories=nut")) == 0
    assert tfds_source.find_categories(tmp_path / "data/mvtec_ad") == ["nut"]
    built = tmp_path / "data/mvtec_ad/nut/1.0.0/dataset_info.json"
    before = built.stat().st_mtime_ns
    assert build_tfds.main(command(tmp_path)) == 0
    assert built.stat().st_mtime_ns == before
    assert "nut: is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--name=My Set"], r"--name=My Set: must be of lower-case letters"),
        (["--categories=bolt"], r"--categories: 'bolt' is not in .*raw, which holds nut, "),
        (["--raw=none/here"], r"--raw: none/here is not a folder: set it to"),
    ],
)
def test_wrong_arguments_are_one_line(place, capsys, options, expected):
    assert build_tfds.main(command(place, *options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(expected, line)


def test_categories_that_would_share_a_folder_are_refused(tmp_path):
    write_files(tmp_path / "raw", "a b/train/good/0.png\na_b/train/good/0.png")
    with pytest.raises(UserError, match=r"a_b: another category is called a_b, too"):
        build_tfds.build("mvtec_ad", tmp_path / "raw", tmp_path / "data")


def test_a_damaged_or_foreign_folder_is_named(place, tmp_path):
    with pytest.raises(
        UserError, match=r"holds nothing that python -m stlm_jax\.commands\.build_tfds"
    ):
        tfds_source.find_categories(place / "raw")
    (tmp_path / "nut/1.0.0").mkdir(parents=True)
    (tmp_path / "nut/1.0.0/dataset_info.json").write_text("{")
    with pytest.raises(UserError, match=r"nut/1\.0\.0: not a data set of TFDS"):
        tfds_source.find_categories(tmp_path)


def test_damaged_records_are_an_image_error(tmp_path):
    write_files(tmp_path / "raw", TREE)
    assert build_tfds.main(command(tmp_path)) == 0
    (file,) = (tmp_path / "data/mvtec_ad/nut/1.0.0").glob("*train.array_record*")
    records = tfds_source.scan(tmp_path / "data/mvtec_ad", "nut").records
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ImageError, match=r"nut/train/good/000\.png"):
        read_image(records[0].image, None)


def test_it_runs_as_a_program(tmp_path):
    write_files(tmp_path / "raw", TREE)
    (tmp_path / "raw/nut/train/good/000.png").unlink()
    (tmp_path / "raw/nut/train/good/000.png").symlink_to(tmp_path / "gone.png")
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "stlm_jax.commands.build_tfds",
            *command(tmp_path, "--categories=nut")[1:],
        ],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert process.returncode == 0, process.stderr
    assert "nut: 5 images written to" in process.stderr


# --- textures ---


@pytest.fixture(scope="module")
def prepared_textures(tmp_path_factory):
    """A data set of textures as TFDS's `dtd` is: three splits of images and labels."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("textures")
    paths = []
    for index in range(9):
        paths.append(write_image(folder / f"{index}.jpg", np.full((12, 8, 3), 20 * index, "u1")))

    class Dtd(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")

        def _info(self):
            features = tfds.features.FeaturesDict({
                "file_name": tfds.features.Text(), "image": tfds.features.Image(),
                "label": tfds.features.ClassLabel(names=["banded", "woven"]),
            })  # fmt: skip
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {s: self._generate_examples(i) for i, s in enumerate(("train", "validation",
                                                                         "test"))}  # fmt: skip

        def _generate_examples(self, part):
            for path in paths[part::3]:
                yield path.name, {"file_name": path.name, "image": str(path), "label": 1}

    Dtd(data_dir=folder / "tfds", file_format="array_record").download_and_prepare()
    return folder


def test_textures_of_a_prepared_data_set(prepared_textures, monkeypatch):
    import tensorflow_datasets as tfds

    place = prepared_textures / "tfds/dtd"
    bank = read_texture_bank(f"tfds:{place}", 9, 4, 0)
    raw = read_texture_bank(prepared_textures, 9, 4, 0)
    assert sorted(bank[:, 0, 0, 0]) == sorted(raw[:, 0, 0, 0]) and len({*bank[:, 0, 0, 0]}) == 9
    np.testing.assert_array_equal(read_texture_bank(f"tfds:{place}/3.0.1", 9, 4, 0), bank)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared_textures / "tfds"))
    np.testing.assert_array_equal(read_texture_bank("tfds:dtd", 9, 4, 0), bank)
    with pytest.raises(UserError, match=r"tfds/dtt holds no data set that TFDS has prepared"):
        read_texture_bank("tfds:dtt", 9, 4, 0)
