"""What is known about the images of a data set."""

from dataclasses import dataclass, field
from pathlib import Path

from stlm_jax.data.stored import StoredFile

File = Path | StoredFile


@dataclass(frozen=True)
class Record:
    """An image file with its ground truth.

    Attributes:
        image: the image file.
        mask: the ground-truth file, or several whose union counts; None where every pixel is
            normal and where, of an anomalous image, the ground truth is not there.
        label: 0 normal, 1 anomalous.
        defect: name of the defect type; `good` for a normal image.
        category: name of the category.
        split: `train` (normal images only), `validation`, `test`, or `unused` for anomalous images
            among the training images, which unsupervised training must not see.
    """

    image: File
    mask: File | tuple[File, ...] | None
    label: int
    defect: str
    category: str
    split: str

    @property
    def masks(self) -> tuple[File, ...]:
        """The ground-truth files, none or more."""
        if self.mask is None:
            return ()
        return self.mask if isinstance(self.mask, tuple) else (self.mask,)

    @property
    def has_truth(self) -> bool:
        """Whether it is known which pixels are anomalous."""
        return not self.label or self.mask is not None


@dataclass(frozen=True)
class Listing:
    """What there is of one category, found without opening an image.

    Attributes:
        records: every image, by split and defect type.
        stray_masks: ground-truth files in the places of the layout that belong to no image.
        empty: folders of the layout that hold no image.
    """

    records: list[Record]
    stray_masks: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
