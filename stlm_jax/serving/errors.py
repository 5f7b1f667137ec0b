"""What is answered where there is no result."""

from collections.abc import Mapping


class Refused(Exception):
    """A request that gets an error instead of a result.

    Attributes:
        status: of HTTP.
        line: what was wrong and what to do, one line.
        headers: of the answer.
    """

    def __init__(self, status: int, line: str, headers: Mapping[str, str] | None = None):
        super().__init__(line)
        self.status, self.line, self.headers = status, line, dict(headers or {})


def too_many(line: str) -> Refused:
    """429: come again in a second."""
    return Refused(429, line, {"Retry-After": "1"})


def not_ready(line: str) -> Refused:
    """503: come again in some seconds."""
    return Refused(503, line, {"Retry-After": "5"})
