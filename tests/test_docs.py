"""The documents: links that lead somewhere, a site that has every page, a table of every key."""

import pathlib
import re
import runpy

import pytest
import yaml

from stlm_jax.config import KEYS

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=str)
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    for link in links:
        if not re.match(r"https?://", link):
            assert (page.parent / link).is_file(), link


def test_the_site_has_every_page():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def files(part):
        for value in part.values() if isinstance(part, dict) else part:
            yield from [value] if isinstance(value, str) else files(value)

    assert sorted(files(site["nav"])) == [p.relative_to(ROOT / "docs").as_posix() for p in PAGES]


def test_the_page_of_keys_has_a_row_for_each():
    hook = runpy.run_path(str(ROOT / "docs/reference/keys.py"))
    page = hook["on_page_markdown"]((ROOT / "docs/reference/keys.md").read_text())
    assert [name for name in KEYS if f"| `{name}` |" not in page] == []
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(re.sub(r"\\\|", "", row).count("|") == 6 for row in rows)
