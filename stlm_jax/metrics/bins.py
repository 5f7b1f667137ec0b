"""Counts of scores by bin, over any number of images."""

import numpy as np

from stlm_jax.metrics.runs import BINS, Runs

_PAGE_BITS = 12
_PAGE = 1 << _PAGE_BITS
_PAGES = -(-BINS // _PAGE)


class Bins:
    """Named sums over the bins of `runs`, kept in pages of which only those in use exist."""

    def __init__(self, columns: tuple[str, ...]):
        """All sums are 0; `columns` are their names."""
        self._slot = np.full(_PAGES, -1, np.int64)
        self._sums = {name: np.zeros(0) for name in columns}
        self._lowest, self._highest = np.zeros(0, np.uint8), np.zeros(0, np.uint8)

    def add(self, runs: Runs, amounts: dict[str, np.ndarray]) -> None:
        """Adds to some of the columns, for each (R,) real numbers."""
        self._add(runs.bins, amounts, runs.lowest, runs.highest)

    def merge(self, other: "Bins") -> None:
        """Adds all that another with the same columns holds."""
        bins, cells = other._filled()
        amounts = {name: sums[cells] for name, sums in other._sums.items()}
        self._add(bins, amounts, other._lowest[cells], other._highest[cells])

    def rows(self) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
        """The bins (K,) in use, rising, their sums by column (K,) and (K,) whether a bin is tied.

        A bin is tied when all its scores are one float.
        """
        bins, cells = self._filled()
        sums = {name: values[cells] for name, values in self._sums.items()}
        return bins, sums, self._lowest[cells] == self._highest[cells]

    def _add(
        self, bins: np.ndarray, amounts: dict[str, np.ndarray], low: np.ndarray, high: np.ndarray
    ) -> None:
        self._make_pages(bins >> _PAGE_BITS)
        cells = (self._slot[bins >> _PAGE_BITS] << _PAGE_BITS) | (bins & (_PAGE - 1))
        for name, values in amounts.items():
            np.add.at(self._sums[name], cells, values)
        self._lowest[cells] = np.minimum(self._lowest[cells], low)
        self._highest[cells] = np.maximum(self._highest[cells], high)

    def _make_pages(self, pages: np.ndarray) -> None:
        wanted = np.zeros(_PAGES, bool)
        wanted[pages] = True
        new = np.flatnonzero(wanted & (self._slot < 0))
        if not len(new):
            return
        used = int(self._slot.max()) + 1
        self._slot[new] = used + np.arange(len(new))
        missing = (used + len(new)) * _PAGE - len(self._lowest)
        if missing > 0:
            # By half at least, so that it is seldom: each time everything is copied.
            more = max(missing, len(self._lowest) // 2)
            self._sums = {n: np.append(sums, np.zeros(more)) for n, sums in self._sums.items()}
            self._lowest = np.append(self._lowest, np.full(more, 255, np.uint8))
            self._highest = np.append(self._highest, np.zeros(more, np.uint8))

    def _filled(self) -> tuple[np.ndarray, np.ndarray]:
        """The bins in use, rising, and where their sums are."""
        pages = np.flatnonzero(self._slot >= 0)
        starts = self._slot[pages] << _PAGE_BITS
        cells = (starts[:, None] + np.arange(_PAGE)).ravel()
        bins = ((pages << _PAGE_BITS)[:, None] + np.arange(_PAGE)).ravel()
        used = self._lowest[cells] <= self._highest[cells]
        return bins[used], cells[used]
