"""What the targets do to files: strategies of damaged bytes, JSON documents and zip archives."""

import functools
import io
import json
import struct
import warnings
import zipfile

from hypothesis import strategies as st

NUMBERS = (0, 1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1,
           2**40, 2**63 - 1)  # fmt: skip
DEEP = 60_000  # brackets, more than any reader's stack


class Content(bytes):
    """Bytes that a failure does not print: the file is there."""

    def __repr__(self):
        return f"<{len(self)} bytes>"

    def _repr_pretty_(self, printer, cycle):
        printer.text(repr(self))


def damaged(content: bytes, most: int = 4):
    """`content` after one to `most` edits.

    Strategies are of edits alone: hypothesis keeps what it has drawn from, and files are large.
    """
    return st.lists(_EDITS, min_size=1, max_size=most).map(
        lambda edits: Content(functools.reduce(_edited, edits, content))
    )


# From the start of a file, from its end, where headers and directories are, or anywhere.
_PLACES = st.one_of(
    st.integers(0, 400),
    st.integers(-401, -1),
    st.integers(0, 2**20).map(lambda part: part / 2**20),
)
_EDITS = st.one_of(
    st.tuples(st.sampled_from(("flip", "flip")), _PLACES, st.integers(0, 7)),
    st.tuples(st.sampled_from(("byte", "insert")), _PLACES, st.binary(min_size=1, max_size=64)),
    st.tuples(
        st.sampled_from(("cut", "delete", "zero", "repeat")), _PLACES, st.integers(1, 64)
    ),
    st.tuples(
        st.just("number"),
        _PLACES,
        st.tuples(st.sampled_from(NUMBERS), st.sampled_from("<>"), st.sampled_from("BHIQ")),
    ),
    st.tuples(st.just("swap"), _PLACES, st.tuples(_PLACES, st.integers(1, 64))),
)  # fmt: skip


def _edited(content: bytes, edit: tuple) -> bytes:
    kind, place, how = edit
    at = _at(place, len(content))
    if kind == "flip":
        flipped = bytes(byte ^ (1 << how) for byte in content[at : at + 1])
        return content[:at] + flipped + content[at + 1 :]
    if kind == "byte":
        return content[:at] + how[:1] + content[at + 1 :]
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + how + content[at:]
    if kind == "delete":
        return content[:at] + content[at + how :]
    if kind == "zero":
        return content[:at] + bytes(how) + content[at + how :]
    if kind == "repeat":
        return content[: at + how] + content[at:]
    if kind == "number":
        number, order, width = how
        size = struct.calcsize(width)
        put = struct.pack(order + width, number % 256**size)
        return content[:at] + put + content[at + size :]
    other, length = how
    first, second = sorted((at, _at(other, len(content))))
    block = min(length, second - first)
    return (
        content[:first] + content[second : second + block]
        + content[first + block : second] + content[first : first + block]
        + content[second + block :]
    )  # fmt: skip


def _at(place: int | float, length: int) -> int:
    if isinstance(place, float):
        return int(place * max(0, length - 1))
    return min(max(0, length + place if place < 0 else place), max(0, length - 1))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.sampled_from([10**400, -1, 0, 1]),
    st.floats(), st.text(max_size=12), st.sampled_from(["", "nan", "inf", "-1", "1e999", "\x00"]),
    st.lists(st.integers(-2, 2), max_size=3), st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
    st.builds(lambda: [[1], {"a": [None]}]), st.just("@deep"),
)  # fmt: skip


@st.composite
def damaged_json(draw, document) -> bytes:
    """A JSON document with other values, keys or bytes; sometimes nested beyond any stack."""
    copy = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        copy = draw(_changed(copy))
    text = json.dumps(copy).replace('"@deep"', "[" * DEEP + "]" * DEEP, 1).encode()
    return Content(draw(damaged(text, 2)) if draw(st.integers(0, 3)) == 0 else text)


@st.composite
def _changed(draw, document):
    places = list(_places(document))
    *above, last = draw(st.sampled_from(places)) if places else (None,)
    if last is None or draw(st.integers(0, 29)) == 0:
        return draw(VALUES)
    holder = document
    for key in above:
        holder = holder[key]
    kind = draw(st.sampled_from(("put", "put", "put", "drop", "add")))
    if kind == "put":
        holder[last] = draw(VALUES)
    elif kind == "drop":
        del holder[last]
    elif isinstance(holder, dict):
        holder[draw(st.text(max_size=8))] = draw(VALUES)
    else:
        holder.append(draw(VALUES))
    return document


def _places(value, above=()):
    inside = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    for key, below in inside:
        yield (*above, key)
        yield from _places(below, (*above, key))


def damaged_zip(content: bytes):
    """An archive whose members were changed, dropped, renamed, nested or blown up."""
    return _damaged_zip(Content(content))


@st.composite
def _damaged_zip(draw, content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        chosen = draw(st.sampled_from(names))
        kind = draw(st.sampled_from(
            ("damage", "damage", "drop", "rename", "twice", "nest", "bomb", "outside", "lie")
        ))  # fmt: skip
        buffer = io.BytesIO()
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w") as out:
            for name in names:
                data = archive.read(name)
                packed = archive.getinfo(name).compress_type
                if name == chosen:
                    if kind == "damage":
                        data = draw(damaged(data))
                    elif kind == "nest":
                        data = content[: 2**16]
                    elif kind == "bomb":
                        data, packed = _bomb(data), zipfile.ZIP_DEFLATED
                    elif kind in ("rename", "outside"):
                        name = "../" * (kind == "outside") + draw(
                            st.text("a/._x", min_size=1, max_size=9)
                        )
                    elif kind == "twice":
                        out.writestr(name, draw(damaged(data)), packed)
                if name != chosen or kind != "drop":
                    out.writestr(name, data, packed)
    if kind != "lie":
        return Content(buffer.getvalue())
    return _lying(buffer.getvalue(), draw(st.sampled_from(NUMBERS)) % 2**32)


def _bomb(data: bytes) -> bytes:
    """What a member begins with, and then zeros that deflate to nothing."""
    return data[:200] + bytes(2**26)


def _lying(content: bytes, size: int) -> bytes:
    """An archive whose directory gives its first member another size."""
    at = content.find(b"PK\x01\x02")
    return Content(content[: at + 24] + struct.pack("<I", size) + content[at + 28 :])
