"""Data sets that `python -m stlm_jax.commands.build_tfds` has written, read as the raw files are.

<root>/<category>/<version>/*.array_record*, where root is <data_dir>/<name of the data set>
"""

from stlm_jax.data import tfds_file
from stlm_jax.data.folders import StrPath
from stlm_jax.data.records import Listing, Record
from stlm_jax.data.sources.layout import Reader, check_category
from stlm_jax.data.tfds_file import StoredFile
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import path_of

CATEGORY, RECORDS = "category", "records"  # of the metadata


def find_categories(root: StrPath) -> list[str]:
    """The names of the categories, sorted."""
    return sorted(_folders(root))


def scan(root: StrPath, category: str) -> Listing:
    """What there is of a category, in the order of the raw data; no image is read."""
    folders = _folders(root)
    check_category(root, category, folders)
    folder = folders[category]
    records = []
    for split, entries in tfds_file.builder(folder).info.metadata[RECORDS].items():
        for index, (path, label, defect, masks) in enumerate(entries):
            files = tuple(
                StoredFile(folder, split, index, mask, number) for number, mask in enumerate(masks)
            )
            mask = files[0] if len(files) == 1 else files or None
            image = StoredFile(folder, split, index, path)
            records.append(Record(image, mask, label, defect, category, split))
    return Listing(records)


READER = Reader(find_categories, scan, "the feature masks")


def _folders(root: StrPath) -> dict[str, str]:
    """The folder of every category."""
    path = path_of(root)
    if not path.is_dir():
        raise UserError(f"data.root: {path} is not a folder: set it to the folder of categories")
    folders = {}
    for place in path.iterdir():
        try:
            folder = tfds_file.version_folder(str(place))
        except UserError:
            continue
        metadata = tfds_file.builder(folder).info.metadata or {}
        if RECORDS in metadata:
            folders[metadata[CATEGORY]] = folder
    if not folders:
        raise UserError(
            f"data.root: {path} holds nothing that python -m stlm_jax.commands.build_tfds has "
            "written: set it to DATA_DIR/NAME"
        )
    return folders
