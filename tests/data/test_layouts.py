"""Every published layout on a miniature tree in exactly its structure."""

import numpy as np
import pytest
from trees import listed, write_files

from stlm_jax.data.images import load_masks
from stlm_jax.data.sources import dagm, ksdd2, mvtec_loco
from stlm_jax.data.sources.registry import SOURCES
from stlm_jax.data.sources.trees import BTAD, MPDD, MVTEC_AD, MVTEC_AD2
from stlm_jax.runtime.errors import UserError


def test_mpdd(tmp_path):
    write_files(tmp_path, """
        connector/train/good/000.png
        connector/test/good/000.png
        connector/test/parts_mismatch/000.png
        connector/ground_truth/parts_mismatch/000_mask.png
        tubes/train/good/000.png
        tubes/test/anomalous/000.png
    """)  # fmt: skip
    assert MPDD.find_categories(tmp_path) == ["connector", "tubes"]
    records, strays, empty = listed(MPDD, tmp_path, "connector")
    assert records == [
        ("train", "good", 0, "connector/train/good/000.png", ""),
        ("test", "good", 0, "connector/test/good/000.png", ""),
        ("test", "parts_mismatch", 1, "connector/test/parts_mismatch/000.png",
         "connector/ground_truth/parts_mismatch/000_mask.png"),
    ]  # fmt: skip
    assert not strays and not empty


def test_btad_with_its_mixed_suffixes(tmp_path):
    write_files(tmp_path, """
        01/train/ok/0000.bmp
        01/test/ok/0000.bmp
        01/test/ko/0000.bmp
        01/test/ko/0001.bmp
        01/ground_truth/ko/0000.png
        01/ground_truth/ko/0001.png
        02/train/ok/0000.png
        02/test/ko/0000.png
        02/ground_truth/ko/0000.png
        03/train/ok/0000.bmp
        03/test/ko/0000.bmp
        03/ground_truth/ko/0000.bmp
    """)  # fmt: skip
    assert BTAD.find_categories(tmp_path) == ["01", "02", "03"]
    assert listed(BTAD, tmp_path, "01")[0] == [
        ("train", "good", 0, "01/train/ok/0000.bmp", ""),
        ("test", "ko", 1, "01/test/ko/0000.bmp", "01/ground_truth/ko/0000.png"),
        ("test", "ko", 1, "01/test/ko/0001.bmp", "01/ground_truth/ko/0001.png"),
        ("test", "good", 0, "01/test/ok/0000.bmp", ""),
    ]
    assert listed(BTAD, tmp_path, "03")[0][-1][-1] == "03/ground_truth/ko/0000.bmp"
    assert [listed(BTAD, tmp_path, name)[1:] for name in ("01", "02", "03")] == [([], [])] * 3


def test_mvtec_loco_joins_the_masks_of_an_image(tmp_path):
    write_files(tmp_path, """
        pushpins/train/good/000.png
        pushpins/validation/good/000.png
        pushpins/test/good/000.png
        pushpins/test/logical_anomalies/000.png
        pushpins/test/logical_anomalies/001.png
        pushpins/test/structural_anomalies/000.png
        pushpins/ground_truth/logical_anomalies/000/000.png = 251 0 0 0
        pushpins/ground_truth/logical_anomalies/000/001.png = 0 0 254 0
        pushpins/ground_truth/logical_anomalies/001/000.png = 0 0 0 255
        pushpins/ground_truth/structural_anomalies/000/000.png = 0 0 0 249
        pushpins/ground_truth/structural_anomalies/007/000.png = 0 0 0 249
    """)  # fmt: skip
    (tmp_path / "pushpins/defects_config.json").write_text("[]")
    assert mvtec_loco.READER.find_categories(tmp_path) == ["pushpins"]
    records, strays, _ = listed(mvtec_loco, tmp_path, "pushpins")
    truth = "pushpins/ground_truth/"
    assert [record[:3] + record[4:] for record in records] == [
        ("train", "good", 0, ""),
        ("validation", "good", 0, ""),
        ("test", "good", 0, ""),
        ("test", "logical_anomalies", 1,
         f"{truth}logical_anomalies/000/000.png + {truth}logical_anomalies/000/001.png"),
        ("test", "logical_anomalies", 1, f"{truth}logical_anomalies/001/000.png"),
        ("test", "structural_anomalies", 1, f"{truth}structural_anomalies/000/000.png"),
    ]  # fmt: skip
    assert strays == [f"{truth}structural_anomalies/007/000.png"]
    masks = load_masks(mvtec_loco.scan(tmp_path, "pushpins").records[2:5], 12)
    assert masks[:, 5, :4].tolist() == [[0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


def test_mvtec_ad2_reads_the_splits_with_ground_truth(tmp_path):
    write_files(tmp_path, """
        vial/train/good/000_regular.png
        vial/validation/good/000_regular.png
        vial/test_public/good/000_overexposed.png
        vial/test_public/bad/000_regular.png
        vial/test_public/bad/000_shift_1.png
        vial/test_public/ground_truth/bad/000_regular_mask.png
        vial/test_public/ground_truth/bad/000_shift_1_mask.png
        vial/test_private/000.png
        vial/test_private_mixed/000_mixed.png
    """)  # fmt: skip
    assert MVTEC_AD2.find_categories(tmp_path) == ["vial"]
    truth = "vial/test_public/ground_truth/bad"
    assert listed(MVTEC_AD2, tmp_path, "vial") == (
        [
            ("train", "good", 0, "vial/train/good/000_regular.png", ""),
            ("validation", "good", 0, "vial/validation/good/000_regular.png", ""),
            ("test", "bad", 1, "vial/test_public/bad/000_regular.png",
             f"{truth}/000_regular_mask.png"),
            ("test", "bad", 1, "vial/test_public/bad/000_shift_1.png",
             f"{truth}/000_shift_1_mask.png"),
            ("test", "good", 0, "vial/test_public/good/000_overexposed.png", ""),
        ],
        [],
        [],
    )  # fmt: skip


def dagm_tree(root):
    write_files(root, """
        Class1/Train/0001.PNG
        Class1/Train/0002.PNG
        Class1/Train/Label/0002_label.PNG
        Class1/Test/0576.PNG
        Class1/Test/0577.PNG
        Class1/Test/Label/0576_label.PNG
        Class2/Train/0001.PNG
        Class2/Test/0001.PNG
        Class10/Train/0001.PNG
        Class10/Test/0001.PNG
    """)  # fmt: skip
    for name in ("Class1/Train", "Class1/Test", "Class2/Train", "Class10/Train"):
        (root / name / "Label").mkdir(exist_ok=True)
        (root / name / "Label" / "Labels.txt").write_text("1\n")
    return root


def test_dagm_trains_on_the_defect_free_images(tmp_path):
    root = dagm_tree(tmp_path)
    assert dagm.find_categories(root) == ["Class1", "Class2", "Class10"]
    assert listed(dagm, root, "Class1") == (
        [
            ("train", "good", 0, "Class1/Train/0001.PNG", ""),
            ("unused", "defect", 1, "Class1/Train/0002.PNG", "Class1/Train/Label/0002_label.PNG"),
            ("test", "defect", 1, "Class1/Test/0576.PNG", "Class1/Test/Label/0576_label.PNG"),
            ("test", "good", 0, "Class1/Test/0577.PNG", ""),
        ],
        [],
        [],
    )
    with pytest.raises(UserError, match=r"Class2/Test/Label is missing: it says which"):
        dagm.scan(root, "Class2")


def test_ksdd2_tells_good_from_defective_by_the_ground_truth(tmp_path):
    write_files(tmp_path, """
        train/10000.png
        train/10000_GT.png = 0
        train/10301.png
        train/10301_GT.png = 0 255
        train/10301 (copy).png
        train/10301_GT (copy).png = 0 255
        test/20000.png
        test/20000_GT.png = 0
        test/20001.png
        test/20001_GT.png = 255 0
        test/20002_GT.png = 0
    """)  # fmt: skip
    assert ksdd2.find_categories(tmp_path) == ["ksdd2"]
    assert listed(ksdd2, tmp_path, "ksdd2") == (
        [
            ("train", "good", 0, "train/10000.png", ""),
            ("unused", "defect", 1, "train/10301.png", "train/10301_GT.png"),
            ("test", "good", 0, "test/20000.png", ""),
            ("test", "defect", 1, "test/20001.png", "test/20001_GT.png"),
        ],
        ["test/20002_GT.png"],
        [],
    )
    (tmp_path / "train/10000_GT.png").unlink()
    with pytest.raises(UserError, match=r"train/10000_GT\.png is missing: it says whether"):
        ksdd2.scan(tmp_path, "ksdd2")


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_wrong_root_or_category_is_one_clear_line(tmp_path, name):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"data\.root: .* set it to") as error:
            SOURCES[name].find_categories(root)
        assert "\n" not in str(error.value)


def test_an_unknown_category_is_told_what_there_is(tmp_path):
    with pytest.raises(
        UserError, match=r"'Class3' is not in .* which holds Class1, Class2, Class10"
    ):
        dagm.scan(dagm_tree(tmp_path / "dagm"), "Class3")
    with pytest.raises(UserError, match="'steel' is not in .* which holds ksdd2"):
        write_files(tmp_path / "k", "train/1.png\ntest/2.png")
        ksdd2.scan(tmp_path / "k", "steel")


def test_links_and_names_with_spaces_and_accents_are_read(tmp_path):
    write_files(tmp_path / "real", """
        écrou M8/train/good/a b.png
        écrou M8/test/fêlure/ü.png
        écrou M8/ground_truth/fêlure/ü_mask.png = 0 255
    """)  # fmt: skip
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    root = tmp_path / "link"
    assert MVTEC_AD.find_categories(root) == ["écrou M8"]
    records = MVTEC_AD.scan(root, "écrou M8").records
    assert [record.defect for record in records] == ["good", "fêlure"]
    np.testing.assert_array_equal(load_masks(records, 12)[1, 0], [0, 1] * 6)
