"""What is known about the images of a data set."""

from dataclasses import dataclass, field
from pathlib import Path

from stlm_jax.data.tfds_file import StoredFile

File = Path | StoredFile


@dataclass(frozen=True)
class Saturation:
    """How much of a defect has to be found for it to count as found (sPRO of MVTec LOCO).

    Attributes:
        value: of the mask's pixels, which tells the kind of defect.
        threshold: pixels of the mask, or where `relative`, a share of the defect's area.
        relative: which of the two.
    """

    value: int
    threshold: float
    relative: bool

    def share(self, area: int) -> float:
        """The share, in 0..1, of a defect of `area` pixels of the mask."""
        return min(1.0, self.threshold if self.relative else self.threshold / area)


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
        split: `train` (normal images only), `held_out` (training images that the configuration
            keeps from training), `validation`, `test`, or `unused` for anomalous images among the
            training images, which unsupervised training must not see.
        saturations: where each file of `mask` is one defect, what its value says of it; empty
            where defects are told apart by being apart.
    """

    image: File
    mask: File | tuple[File, ...] | None
    label: int
    defect: str
    category: str
    split: str
    saturations: tuple[Saturation, ...] = ()

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
        folders: those whose every file should be one of these, with what is below them.
        around: folders that hold them, and may hold other things, though no further pictures.
    """

    records: list[Record]
    stray_masks: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    around: list[Path] = field(default_factory=list)
