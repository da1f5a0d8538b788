"""Every relative link of README.md and docs/ leads somewhere, on GitHub and on the site."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.docs.pages import PAGES, name, prose

LINK = re.compile(r"\]\((?!\w+:)([^)\s]*)\)")


def anchors(text: str) -> set[str]:
    """GitHub's names of a page's headings; mkdocs.yml chooses the same for the site."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        words = re.sub(r"\[([^]]*)]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        while anchor in found:
            anchor += "-1"
        found.add(anchor)
    return found


def broken(page: Path) -> list[str]:
    text = page.read_text("utf-8")
    return [link for link in LINK.findall(prose(text)) if not leads(page, link)]


def leads(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target.read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A & b\n## A & b\n[1](#a--b) [2](#a--b-1) [3](gone.md) [4](#c) [5](https://a.org) "
        "[6](page.md#a--b) [7](page.md#d)\n```\n[8](gone.md)\n```\n"
    )
    assert broken(page) == ["gone.md", "#c", "page.md#d"]


def test_every_page_is_in_the_readme_and_on_the_site() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", (ROOT / "README.md").read_text("utf-8")))
    on_the_site = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert linked == pages
    assert sorted(on_the_site) == sorted(pages | {"index.md"})


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1100
