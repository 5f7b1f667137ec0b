"""VisA's two layouts, as extracted and as converted, and its masks of defect classes."""

import pytest
from trees import listed, write_files

from stlm_jax.data.images import load_masks
from stlm_jax.data.sources import visa
from stlm_jax.runtime.errors import UserError

VISA = """
    candle/Data/Images/Normal/0000.JPG
    candle/Data/Images/Normal/0001.JPG
    candle/Data/Images/Anomaly/000.JPG
    candle/Data/Images/Anomaly/001.JPG
    candle/Data/Masks/Anomaly/000.png = 0 1 0 5
    candle/Data/Masks/Anomaly/001.png = 0 0 0 2
    pcb1/Data/Images/Normal/0000.JPG
"""
ONE_CLASS = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0001.JPG,
candle,test,normal,candle/Data/Images/Normal/0000.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,candle/Data/Masks/Anomaly/001.png
pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,
"""


@pytest.fixture
def visa_root(tmp_path):
    write_files(tmp_path, VISA)
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text(ONE_CLASS)
    (tmp_path / "candle/image_anno.csv").write_text("image,label,mask\n")
    return tmp_path


def test_visa_as_it_is_extracted(visa_root):
    assert visa.find_categories(visa_root) == ["candle", "pcb1"]
    with pytest.raises(UserError, match=r"'cashew' is not in .* which holds candle, pcb1"):
        visa.scan(visa_root, "cashew")
    assert listed(visa, visa_root, "candle") == (
        [
            ("train", "good", 0, "candle/Data/Images/Normal/0001.JPG", ""),
            ("test", "good", 0, "candle/Data/Images/Normal/0000.JPG", ""),
            ("test", "anomaly", 1, "candle/Data/Images/Anomaly/000.JPG",
             "candle/Data/Masks/Anomaly/000.png"),
            ("test", "anomaly", 1, "candle/Data/Images/Anomaly/001.JPG",
             "candle/Data/Masks/Anomaly/001.png"),
        ],
        [],
        [],
    )  # fmt: skip


def test_every_defect_class_of_a_visa_mask_counts(visa_root):
    records = visa.scan(visa_root, "candle").records[2:]
    assert load_masks(records, 12)[:, 5, :4].tolist() == [[0, 1, 0, 1], [0, 0, 0, 1]]


def test_visa_converted_to_the_layout_of_mvtec_ad(tmp_path):
    write_files(tmp_path, """
        candle/train/good/0001.JPG
        candle/test/good/0000.JPG
        candle/test/bad/000.JPG
        candle/ground_truth/bad/000.png
    """)  # fmt: skip
    assert visa.find_categories(tmp_path) == ["candle"]
    assert listed(visa, tmp_path, "candle") == (
        [
            ("train", "good", 0, "candle/train/good/0001.JPG", ""),
            ("test", "bad", 1, "candle/test/bad/000.JPG", "candle/ground_truth/bad/000.png"),
            ("test", "good", 0, "candle/test/good/0000.JPG", ""),
        ],
        [],
        [],
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (ONE_CLASS.replace("object,", "class,"), r"1cls\.csv: .* must name the column object; it"),
        (ONE_CLASS.replace("train,normal", "fit,normal", 1), r"line 2: split is 'fit': must be"),
        (ONE_CLASS.replace("test,anomaly", "test,bad", 1), r"line 4: label is 'bad': must be"),
        (ONE_CLASS.replace("01.JPG,\n", "01.JPG,,,\n", 1), r"line 2 has 7 values for 5 columns"),
    ],
)
def test_a_damaged_table_is_named_with_its_line(visa_root, table, said):
    (visa_root / "split_csv/1cls.csv").write_text(table)
    with pytest.raises(UserError, match=said) as error:
        visa.scan(visa_root, "candle")
    assert "\n" not in str(error.value)
