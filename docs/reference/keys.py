"""Puts the table of keys, from the code, into the page of keys; a hook of mkdocs."""

from typing import Any

from stlm_jax.config import BY_CATEGORY, KEYS

_CHANGES = {"training": "another training", "length": "a longer or shorter one",
            "presence": "another one if it is set or not", "nothing": ""}  # fmt: skip
_PLACE = "<!-- keys -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with the table in its place."""
    return markdown.replace(_PLACE, table()) if _PLACE in markdown else markdown


def table() -> str:
    """A row a key."""
    lines = ["| key | default | range | what it is | another value makes |", "| --- " * 5 + "|"]
    rows = {**KEYS, **{f"{name}.NAME": key for name, key in BY_CATEGORY.items()}}
    for name, key in rows.items():
        value = ",".join(key.default) if isinstance(key.default, tuple) else key.default
        cells = [f"`{name}`", f"`{value}`" if value != "" else "", key.rule.text, key.reason,
                 _CHANGES[key.changes]]  # fmt: skip
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)
