"""What is known of a model, in `FILE.json` beside a file that cannot hold it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import write_json
from stlm_jax.weights.file import FORMAT, check_format


def sidecar_path(path: str | Path) -> Path:
    """Where the description of the file `path` is."""
    return Path(f"{path}.json")


def write_sidecar(path: str | Path, description: Mapping[str, Any]) -> None:
    """Writes the description of the file `path`."""
    write_json(sidecar_path(path), description)


def read_sidecar(path: str | Path) -> dict[str, Any]:
    """The description of the file `path`, empty where there is none of ours."""
    sidecar = sidecar_path(path)
    try:
        description = json.loads(sidecar.read_text(encoding="utf-8"))
        if not isinstance(description, dict):
            raise ValueError(f"it holds a {type(description).__name__}")
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{sidecar}: not a description of {path} ({error})") from error
    if description.get("format") != FORMAT:
        return {}  # a file that happens to lie there
    check_format(sidecar, description, "a description")
    return description
