"""Adapt links for the site: README.md is its first page, linked files of the repository come along.

A hook of MkDocs (https://www.mkdocs.org/user-guide/configuration/#hooks). Pages link to files as on
GitHub, so that some links leave docs/; MkDocs knows files inside alone.
"""

import posixpath
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(#[^)\s]*)?(?=\))")
PAGES = {"README.md": "index.md"}  # pages that lie outside docs/
COPIES = "repository"  # the folder of the site for other files
SHOWN = {".md", ".png"}  # browsers show other files if they are called text


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md, and every file outside docs/ that a page links to."""
    pages = {"README.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())}
    seen: set[str] = set()
    while pages:
        page = pages.pop()
        seen.add(page)
        for target in _targets(page):
            if target not in seen and (ROOT / target).is_file() and not _inside(target):
                seen.add(target)
                if target.endswith(".md"):
                    pages.add(target)
    for target in sorted(seen):
        if not _inside(target):
            content = (ROOT / target).read_bytes()
            files.append(File.generated(config, _name(target), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at where the site has their targets; a folder's link becomes its name."""
    source = _source(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def adapt(match: re.Match[str]) -> str:
        target = _resolve(source, match[1])
        if not (ROOT / target).is_file():
            return match[0]
        relative = posixpath.relpath(_name(target), here or ".")
        return f"{relative}{match[2] or ''}"

    without_folders = re.sub(
        r"\[([^\]]+)\]\(([^)#\s]+)\)",
        lambda m: m[1] if (ROOT / _resolve(source, m[2])).is_dir() else m[0],
        markdown,
    )
    return LINK.sub(adapt, without_folders)


def _inside(target: str) -> bool:
    return target.startswith("docs/")


def _name(target: str) -> str:
    """Return the name in the site of a file of the repository."""
    if _inside(target):
        return target.removeprefix("docs/")
    if target in PAGES:
        return PAGES[target]
    ending = "" if PurePosixPath(target).suffix in SHOWN else ".txt"
    return f"{COPIES}/{target}{ending}"


def _source(name: str) -> str:
    if name == "index.md":
        return "README.md"
    if name.startswith(f"{COPIES}/"):
        return name.removeprefix(f"{COPIES}/")
    return f"docs/{name}"


def _targets(page: str) -> set[str]:
    text = (ROOT / page).read_text("utf-8")
    return {_resolve(page, match[1]) for match in LINK.finditer(text)}


def _resolve(page: str, link: str) -> str:
    path = (ROOT / page).parent / link
    try:
        return path.resolve().relative_to(ROOT).as_posix()
    except ValueError:
        return link
