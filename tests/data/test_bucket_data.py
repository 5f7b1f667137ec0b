"""Data sets in a bucket are listed, checked and read as on a disk."""

import numpy as np
import pytest
from bucket_server import BUCKET, served_bucket
from trees import NUT, listed, short, write_files

from stlm_jax.config import default
from stlm_jax.data import dataset
from stlm_jax.data.checked import identity
from stlm_jax.data.depth import TRAIN
from stlm_jax.data.images import load_images, load_masks
from stlm_jax.data.sources import tfds
from stlm_jax.data.sources.registry import SOURCES, open_source
from stlm_jax.data.textures import read_texture_bank
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import write_atomically
from stlm_jax.runtime.paths import path_of

VISA = """
    candle/Data/Images/Normal/0.png
    candle/Data/Images/Normal/1.png
    candle/Data/Images/Anomaly/0.png
    candle/Data/Masks/Anomaly/0.png = 0 255
"""
TABLE = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0.png,
candle,test,normal,candle/Data/Images/Normal/1.png,
candle,test,anomaly,candle/Data/Images/Anomaly/0.png,candle/Data/Masks/Anomaly/0.png
"""


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with served_bucket(tmp_path_factory.mktemp("emulator") / "log"):
        yield path_of(BUCKET)


@pytest.fixture
def sent(bucket, tmp_path):
    """Gives the folder of the bucket that a copy of a local one is in."""

    def send(folder):
        for file in filter(lambda path: path.is_file(), folder.rglob("*")):
            write_atomically(
                bucket / tmp_path.name / file.relative_to(folder).as_posix(), file.read_bytes()
            )
        return bucket / tmp_path.name

    return send


def settings(root, **values):
    config = default()
    config.data.root, config.data.categories = str(root), ("nut",)
    config.image_size, config.train.batch_size = 32, 1
    for key, value in values.items():
        config.data[key] = value
    return config


def test_mvtec_ad(tmp_path, sent):
    write_files(tmp_path, NUT)
    there = sent(tmp_path)
    reader = SOURCES["mvtec_ad"]
    assert reader.find_categories(str(there)) == reader.find_categories(tmp_path) == ["nut"]
    theirs = listed(reader, tmp_path, "nut")
    assert listed(reader, there, "nut") == theirs and len(theirs[0]) == 6
    ours, local = (reader.scan(root, "nut").records for root in (there, tmp_path))
    np.testing.assert_array_equal(load_images(ours, 16), load_images(local, 16))
    np.testing.assert_array_equal(load_masks(ours, 16), load_masks(local, 16))
    assert load_masks(ours, 16).any()


def test_visa_and_its_table(tmp_path, sent):
    write_files(tmp_path, VISA)
    write_atomically(tmp_path / "split_csv/1cls.csv", TABLE)
    there, reader = sent(tmp_path), SOURCES["visa"]
    assert reader.find_categories(there) == ["candle"]
    assert listed(reader, there, "candle") == listed(reader, tmp_path, "candle")


def test_own_folders_and_a_table_of_them(tmp_path, sent):
    write_files(tmp_path, "a/0.png\na/1.png\nb/2.png\nbad/3.png\nmasks/3.png = 0 255")
    write_atomically(tmp_path / "t.csv", "image,split,label\na/0.png,train,\nbad/3.png,test,bad\n")
    there = sent(tmp_path)
    names = {"train_dir": "a", "test_good_dir": "b", "test_defect_dir": "bad", "mask_dir": "masks"}
    for keys, count in ((names, 4), ({"csv": "t.csv"}, 2)):
        shown = []
        for root in (tmp_path, there):
            places = {key: str(root / name) for key, name in keys.items()}
            source = open_source(settings("", source="folder", **places))
            assert source.find_categories() == ["nut"]
            shown.append([short(record, root) for record in source.scan("nut").records])
        assert shown[0] == shown[1] and len(shown[0]) == count


def test_the_check_at_the_start(tmp_path, sent):
    write_files(tmp_path, NUT + "nut/train/good/notes.png\nnut/train/photo.gif\n")
    (tmp_path / "nut/train/good/notes.png").write_text("no image")
    there = sent(tmp_path)
    found = []
    for root in (tmp_path, there):
        said = []
        config = settings(root, on_error="skip", depth=TRAIN)
        dataset.prepare(config)
        checked = dataset.check(config, say=said.append)
        assert checked.of
        found.append([line.replace(str(root), "ROOT") for line in said])
    assert found[0] == found[1] and any("photo.gif" in line for line in found[0])

    checked.store(there / "data_check.json")
    records = dataset.scan(config, "nut").records
    assert identity(config, records) == checked.of
    write_atomically(there / "nut/train/good/000.png", b"another")
    assert identity(config, dataset.scan(config, "nut").records) != checked.of


def test_textures(tmp_path, sent):
    write_files(tmp_path, "x/a.png\nx/y/b.png\nc.png")
    there = str(sent(tmp_path))
    ours, theirs = (read_texture_bank(root, 5, 16, seed=3) for root in (there, tmp_path))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("root", ["gs://bucket/nowhere", "gs://bucket/file.png"])
def test_a_folder_that_is_not_there(bucket, root):
    write_atomically(bucket / "file.png", b"")
    with pytest.raises(UserError, match=f"data.root: {root} is not a folder"):
        SOURCES["mvtec_ad"].find_categories(root)
    with pytest.raises(UserError, match=f"data.texture_root: {root} is not a folder"):
        read_texture_bank(root, 1, 16, 0)


def test_what_cannot_be_in_a_bucket_is_said(bucket):
    with pytest.raises(UserError, match=r"^config\.data\.root=gs://bucket/demo: the demo set is"):
        dataset.prepare(settings("gs://bucket/demo", demo=True))
    write_atomically(bucket / "tfds/nut/1.0.0/dataset_info.json", "{}")
    with pytest.raises(UserError, match=r"^gs://bucket/tfds/nut/1\.0\.0: ArrayRecord, .* copy the"):
        tfds.find_categories("gs://bucket/tfds")
