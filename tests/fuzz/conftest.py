"""What the targets share with the tests of the rooms: stand-in models and servers."""

import pathlib
import sys

_TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path += [str(_TESTS / room) for room in ("serving", "prediction", "conversion")]
