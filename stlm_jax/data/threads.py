"""Work that releases Python's lock, done in threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(
    function: Callable[[T], R], items: Iterable[T], ahead: int = 16
) -> Generator[R, None, None]:
    """`function` of every item, in order; at most `ahead` results wait to be taken.

    An exception of `function` is raised where its result would be; what is not begun is left.
    """
    # The executor's own `map` would begin with all items and keep the results of all.
    pool = ThreadPoolExecutor()
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
