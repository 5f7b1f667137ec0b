"""An image file that is in memory, as it came over a network."""

from dataclasses import dataclass

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # PIL's names of what `folders` lists


@dataclass(frozen=True)
class MemoryFile:
    """The content of an image file of one of `FORMATS`.

    Attributes:
        name: what messages call it.
        content: its bytes.
    """

    name: str
    content: bytes

    def read_bytes(self) -> bytes:
        """The file's content."""
        return self.content

    def __str__(self) -> str:
        return self.name
