"""Which kind of answer a client asks for, by its header Accept (RFC 9110, 12.5.1)."""

from collections.abc import Sequence


def wanted(accept: str, offered: Sequence[str]) -> str | None:
    """The offered media type that a client likes best, the first of equals; None where none is."""
    ranges = _ranges(accept or "*/*")
    quality = {kind: _quality(kind, ranges) for kind in offered}
    best = max(offered, key=lambda kind: quality[kind])
    return best if quality[best] > 0 else None


def _ranges(accept: str) -> dict[str, float]:
    """The quality of each media range; what cannot be understood is passed over."""
    ranges: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = min(1.0, max(0.0, float(value)))
                except ValueError:
                    quality = 0.0
        if name:
            ranges[name] = max(quality, ranges.get(name, 0.0))
    return ranges


def _quality(kind: str, ranges: dict[str, float]) -> float:
    """That of the most specific range that holds a kind."""
    for name in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0
