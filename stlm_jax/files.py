"""Files that are either whole or absent."""

import os
from pathlib import Path


def write_atomically(path: str | os.PathLike, content: bytes | str) -> Path:
    """Write beside `path`, then rename over it; text is UTF-8. Folders are made as needed.

    Returns:
        The path. A reader sees the old content or the new, and a failure leaves the old.

    Raises:
        OSError: the disk or the permissions refuse.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(unfinished, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
