"""How a category is laid out as a TFDS data set; imported only to write one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from stlm_jax.data.records import File, Record
from stlm_jax.data.sources.tfds import CATEGORY, RECORDS
from stlm_jax.runtime.progress import track

Example = tuple[int, dict[str, Any]]


class CategoryBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """One category of a data set, written in ArrayRecord.

    The metadata list the records of every split in the order of the examples, so that a reader
    need not open one to know them.
    """

    url_infos = None  # nothing is downloaded; TFDS's own search for a list of downloads is spared

    def __init__(
        self, name: str, config: Any, category: str, records: list[Record], raw: Path, data_dir: str
    ):
        """The records, named relative to `raw`, as category `config` of the data set `name`."""
        self.name, self.VERSION = name, tfds.core.Version(config.version)
        self._category, self._raw = category, raw
        self._splits: dict[str, list[Record]] = {}
        for record in records:
            self._splits.setdefault(record.split, []).append(record)
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self):
        features = tfds.features
        listed = {split: [self._entry(r) for r in part] for split, part in self._splits.items()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self._category} of {self.name}, for anomaly detection.",
            features=features.FeaturesDict({
                "image": features.Image(),
                "masks": features.Sequence(features.Image(shape=(None, None, 1))),
                "label": features.ClassLabel(names=["normal", "anomalous"]),
                "defect": features.Text(),
                "path": features.Text(),
            }),
            metadata=tfds.core.MetadataDict({CATEGORY: self._category, RECORDS: listed}),
            disable_shuffling=True,
        )  # fmt: skip

    def _split_generators(self, dl_manager):
        return {split: self._examples(part) for split, part in self._splits.items()}

    def _generate_examples(self):
        raise NotImplementedError  # abstract, but not called: `_split_generators` has them all

    def _examples(self, records: list[Record]) -> Iterator[Example]:
        for index, record in enumerate(track(records, f"build {self._category}")):
            # Paths, not arrays: TFDS would encode an array with TensorFlow.
            example = {
                "image": str(record.image),
                "masks": [str(mask) for mask in record.masks],
                "label": record.label,
                "defect": record.defect,
                "path": self._relative(record.image),
            }
            yield index, example

    def _entry(self, record: Record) -> list[Any]:
        masks = [self._relative(mask) for mask in record.masks]
        return [self._relative(record.image), record.label, record.defect, masks]

    def _relative(self, file: File) -> str:
        path = Path(str(file))
        return (path.relative_to(self._raw) if path.is_relative_to(self._raw) else path).as_posix()
