"""What the targets share with the tests of the rooms: stand-in models and servers."""

import pathlib
import sys

from outcome import LONG, tried

_TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path += [str(_TESTS / room) for room in ("serving", "prediction", "conversion")]


def pytest_terminal_summary(terminalreporter):
    """How many inputs there were, by target and outcome; of `make fuzz`."""
    if LONG and tried:
        terminalreporter.section(f"{sum(tried.values())} inputs")
        for outcome, count in sorted(tried.items()):
            terminalreporter.line(f"{count:7}  {outcome}")
