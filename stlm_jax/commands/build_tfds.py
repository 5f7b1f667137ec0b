"""Writes a data set as TFDS does, in ArrayRecord, for machines that read from a bucket.

python -m stlm_jax.commands.build_tfds SOURCE --raw=DIR --data_dir=DIR [--name=NAME]
    [--categories=A,B]

Every category becomes a configuration of the data set NAME (default: SOURCE), so that TFDS reads
it with `tfds.builder("NAME/CATEGORY", data_dir=DIR).as_data_source("train")` and this package with
--config.data.source=tfds --config.data.root=DIR/NAME. Image files are stored as they are, byte for
byte. TensorFlow is not needed.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from stlm_jax.data.records import Record
from stlm_jax.data.sources.registry import SOURCES
from stlm_jax.data.tfds_file import INFO
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.exit_status import exit_status
from stlm_jax.runtime.files import disk_problem
from stlm_jax.runtime.lock import only_here
from stlm_jax.runtime.paths import in_bucket
from stlm_jax.runtime.progress import note
from stlm_jax.workdir import LOCK

VERSION = "1.0.0"
_IN_USE = "writes this category: wait for its end, or give another --data_dir"
_PREPARED = "tfds"  # the source that reads what is written here
# What the readers call what the flags here say.
_FLAGS = {"data.root": "--raw", "data.categories": "--categories"}


def main(argv: Sequence[str] | None = None) -> int:
    """Builds what `argv` (the program's name first) names; the exit status."""
    readers = sorted(name for name in SOURCES if name != _PREPARED)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", choices=readers, metavar="SOURCE", help=", ".join(readers))
    parser.add_argument("--raw", required=True, help="the folder of the extracted files")
    parser.add_argument("--data_dir", required=True, help="the folder of TFDS data sets")
    parser.add_argument("--name", help="of the data set; default: SOURCE")
    parser.add_argument("--categories", help="names separated by commas; default: all")
    arguments = parser.parse_args(None if argv is None else list(argv)[1:])
    return exit_status(lambda: _run(arguments), "stopped; categories that were begun are missing")


def _run(arguments: argparse.Namespace) -> None:
    categories = arguments.categories.split(",") if arguments.categories else None
    try:
        build(arguments.source, arguments.raw, arguments.data_dir, arguments.name, categories)
    except UserError as error:
        line = str(error)
        for key, flag in _FLAGS.items():
            line = line.replace(key, flag)
        raise UserError(line) from error


def build(
    source: str,
    raw: str,
    data_dir: str,
    name: str | None = None,
    categories: Sequence[str] | None = None,
) -> list[Path]:
    """Writes categories of a data set; those that are there already are left as they are.

    Args:
        source: a name in `registry.SOURCES`.
        raw: the folder of the extracted files.
        data_dir: the folder of TFDS data sets.
        name: of the data set; by default `source`.
        categories: by default all.

    Returns:
        The folder of every category.
    """
    name = name or source
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"--name={name}: must be of lower-case letters, digits and underscores")
    for place in (raw, data_dir):
        if in_bucket(place):
            raise UserError(f"{place}: TFDS copies local files only: give a local folder")
    reader = SOURCES[source]
    folders: dict[str, Path] = {}
    for category in categories or reader.find_categories(raw):
        records = reader.scan(raw, category).records
        folder = Path(data_dir) / name / _config_name(category) / VERSION
        if folder in folders.values():
            raise UserError(f"{category}: another category is called {folder.parent.name}, too")
        folders[category] = folder
        if not (folder / INFO).exists():
            _require_files(records)
            with only_here(folder.parent / LOCK, _IN_USE):
                if not (folder / INFO).exists():
                    _write(name, category, records, Path(raw), folder)
                    note(f"{category}: {len(records)} images written to {folder}")
                    continue
        note(f"{category}: is there already; to write it again, delete {folder}")
    return list(folders.values())


def _config_name(category: str) -> str:
    return re.sub(r"[^\w.+-]", "_", category)


def _require_files(records: list[Record]) -> None:
    for record in records:
        for file in (record.image, *record.masks):
            if not file.is_file():
                raise UserError(f"{file} does not exist: it belongs to {record.image}")


def _write(name: str, category: str, records: list[Record], raw: Path, folder: Path) -> None:
    import tensorflow_datasets as tfds

    from stlm_jax.data.sources.tfds_builder import CategoryBuilder

    for left in folder.parent.glob(f"incomplete.*_{VERSION}"):  # of one that was killed
        shutil.rmtree(left)
    tfds.disable_progress_bar()
    config = tfds.core.BuilderConfig(name=folder.parent.name, version=VERSION)
    data_dir = str(folder.parents[2])
    try:
        CategoryBuilder(name, config, category, records, raw, data_dir).download_and_prepare()
    except Exception as error:
        reason = disk_problem(error)
        if reason is None:
            raise
        raise UserError(
            f"{folder}: cannot be written: {reason}: mend that and run the same command again, "
            "which goes on with this category"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
