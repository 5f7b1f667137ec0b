"""What is known of a model, in `FILE.json` beside a file that cannot hold it.

StableHLO cannot. Torch's state dicts, which of the last release could not either, hold it in their
metadata now; that of the last release is still read.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import json_text, parsed_json, write_json
from stlm_jax.runtime.paths import path_of
from stlm_jax.weights.digest import CONTENT, check_content, content_digest
from stlm_jax.weights.file import FORMAT, check_format

DESCRIPTION = "stlm_jax"  # in the metadata of a state dict: the description as JSON
WEIGHTS = "weights_sha256"  # in a description: `digest.weights_digest` of the model
SEGMENTATION = "segmentation_sha256"  # likewise: the digest in the file of the FA module


def sidecar_path(path: str | Path) -> Path:
    """Where the description of the file `path` is."""
    return path_of(f"{path}.json")


def write_sidecar(path: str | Path, description: Mapping[str, Any]) -> None:
    """Writes the description of the file `path`, with a digest of itself."""
    values = parsed_json(json_text(description))
    write_json(sidecar_path(path), values | {CONTENT: content_digest({}, _texts(values))})


def read_sidecar(path: str | Path) -> dict[str, Any]:
    """The description of the file `path`, empty where there is none of ours."""
    sidecar = sidecar_path(path)
    try:
        described = _parsed(sidecar, sidecar.read_text(encoding="utf-8"))
        check_content(sidecar, {}, _texts(described))
        return described
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{sidecar}: not a description of {path} ({error})") from error


def _texts(description: Mapping[str, Any]) -> dict[str, str]:
    """A description as metadata of which there is a digest: each value as JSON has it."""
    return {
        name: value if name == CONTENT and isinstance(value, str) else json.dumps(value)
        for name, value in description.items()
    }


def _parsed(source: str | Path, text: str) -> dict[str, Any]:
    description = parsed_json(text)
    if not isinstance(description, dict):
        raise ValueError(f"it holds a {type(description).__name__}")
    if description.get("format") != FORMAT:
        return {}  # a file that happens to lie there
    check_format(source, description, "a description")
    return description


def state_dict_metadata(description: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a state dict that hold a description; the digest is to be filled in."""
    return {"format": "pt", DESCRIPTION: json_text(description), CONTENT: ""}


def read_description(
    path: str | Path, metadata: Mapping[str, str], digest: Callable[[], str]
) -> dict[str, Any]:
    """What the state dict `path` says of its model, in its `metadata` or, as of old, beside it.

    Args:
        path: the file.
        metadata: of it.
        digest: gives the `weights_digest` of the model, which a description beside must be of.
    """
    source = path if DESCRIPTION in metadata else sidecar_path(path)
    if source == path:
        try:
            described = _parsed(path, metadata[DESCRIPTION])
        except ValueError as error:
            raise UserError(f"{path}: what it says of the model is damaged ({error})") from error
    else:
        described = read_sidecar(path)
    if described and CONTENT not in metadata and described.get(WEIGHTS) != digest():
        raise UserError(
            f"{path}: damaged, or not the model that {source} describes: get a whole copy, or "
            "delete the description if it is of another"
        )
    return described


def check_pair(
    path: str | Path, description: Mapping[str, Any], other: str | Path, found: Mapping[str, str]
) -> None:
    """Raises UserError unless the FA module's file `other` is what `path` was written with.

    Args:
        path: the two-stream file.
        description: what it says of the model.
        other: the FA module's file.
        found: its metadata.
    """
    if description.get(SEGMENTATION, found.get(CONTENT)) != found.get(CONTENT):
        raise UserError(
            f"{other}: not the FA module of {path}, which was written with another: give the two "
            "files of one model"
        )
