"""What mkdocs does for our documentation beside its own: ``make docs`` and mkdocs.yml name this module.

Pages are written to be read in the tree as well, so here they become pages of a site:

* those that lie beside docs/ join it, and links that leave docs/ lead to them,
* every decision gets its place, below a page that lists them,
* fences lose the words by which tests find them (``file=all.yaml`` becomes a title).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

__all__ = ["on_config", "on_files", "on_page_markdown"]

TREE = Path(__file__).parents[1]
ROOT_PAGES = {
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "trusted.md",
}
"""Pages beside docs/, and what each is called in the site. Not security.md, which docs/ has."""
_DECISIONS = "adr/index.md"
_FENCE = re.compile(r"^```(\w+) +(\S+)$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\(((?!https?://)[^)#\s]+)(#[\w-]+)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the decisions, which are too many to be named one by one, where the navigation says ``adr``."""
    decisions = [_DECISIONS, *(f"adr/{each.name}" for each in _find_decisions())]
    for section in cast("list[dict[str, str | list[dict[str, object]]]]", config["nav"] or []):
        for pages in section.values():
            for page in pages if isinstance(pages, list) else ():
                page |= {title: decisions for title, target in page.items() if target == "adr"}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that docs/ does not have."""
    for name, uri in ROOT_PAGES.items():
        files.append(File.generated(config, uri, content=(TREE / name).read_text()))
    files.append(File.generated(config, _DECISIONS, content=_list_decisions()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return the page as mkdocs understands it."""
    source = page.file.src_uri
    by_uri = {uri: name for name, uri in ROOT_PAGES.items()}
    written_in = TREE / by_uri[source] if source in by_uri else TREE / "docs" / source
    here = Path(source).parent

    def lead(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        found = (written_in.parent / target).resolve()
        if not found.exists():
            return match[0]  # mkdocs tells of it
        if (uri := _find_uri(found)) is None:
            return f"{text} (`{found.relative_to(TREE)}`)"
        return f"[{text}]({'../' * len(here.parts)}{uri}{anchor})"

    return _FENCE.sub(_name_fence, _LINK.sub(lead, markdown))


def _find_uri(path: Path) -> str | None:
    """Return where the site has *path* of the tree; None where it has it not."""
    docs = TREE / "docs"
    if path == docs / "adr":
        return _DECISIONS
    if path.is_file() and path.is_relative_to(docs):
        return str(path.relative_to(docs))
    return ROOT_PAGES.get(str(path.relative_to(TREE)))


def _name_fence(match: re.Match[str]) -> str:
    kind = "json" if match[1] == "jsonl" else match[1]
    name = match[2].removeprefix("file=")
    return f'```{kind} title="{name}"' if name != match[2] else f"```{kind}"


def _find_decisions() -> list[Path]:
    return sorted((TREE / "docs" / "adr").glob("*.md"))


def _list_decisions() -> str:
    """Return the page that lists the decisions, by number."""
    titles = [
        (each.name, each.read_text().partition("\n")[0].removeprefix("# "))
        for each in _find_decisions()
    ]
    rows = [f"- [{title.replace('. ', ': ', 1)}]({name})" for name, title in titles]
    return "\n".join(["# Decisions", "", "Each with its context and its consequences.", "", *rows])
