"""Photographs that scikit-image ships inside its wheel."""

from pathlib import Path

from stlm_jax.runtime.errors import UserError


def photograph_file(name: str) -> Path:
    """The file of a photograph, by its name in `skimage/data`."""
    try:
        import skimage
    except ImportError:
        raise UserError("scikit-image is not installed: run pip install 'stlm_jax[demo]'") from None
    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise UserError(
            f"{path} is missing from the installed scikit-image: install scikit-image 0.26"
        )
    return path
