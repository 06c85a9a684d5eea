"""The documentation as a site: what `make docs` builds is whole, and is read without any other host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Request, expect, sync_playwright

from tests.browser import find_chromium

TREE = Path(__file__).parents[2]
MKDOCS = Path(sys.executable).parent / "mkdocs"
LOADS = {
    ("audio", "src"),
    ("embed", "src"),
    ("iframe", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("link", "href"),
    ("object", "data"),
    ("script", "src"),
    ("source", "src"),
    ("source", "srcset"),
    ("video", "src"),
}
"""Where a browser goes by itself. A link waits for a click."""


def build(target: Path, tree: Path = TREE) -> subprocess.CompletedProcess[str]:
    """Build the site of *tree* into *target*, as `make check` does."""
    return subprocess.run(
        [MKDOCS, "build", "--strict", "--site-dir", target],
        cwd=tree,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


class Loads(HTMLParser):
    """What a page has a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if value and (tag, name) in LOADS]


def loads_of(html: str) -> list[str]:
    reader = Loads()
    reader.feed(html)
    styles = "".join(re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL))
    return [*reader.found, *loads_of_style(styles)]


def loads_of_style(css: str) -> list[str]:
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    return re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", css)


def is_outside(url: str) -> bool:
    return re.match(r"(?:[a-z][a-z0-9+.-]*:)?//", url, re.IGNORECASE) is not None


def outside(site: Path) -> Iterator[str]:
    """Yield whatever is loaded from elsewhere."""
    for path in sorted(site.rglob("*")):
        if path.suffix in {".html", ".svg"}:
            found = loads_of(path.read_text())
        elif path.suffix == ".css":
            found = loads_of_style(path.read_text())
        else:
            continue
        yield from (f"{path.relative_to(site)}: {url}" for url in found if is_outside(url))


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    assert list(outside(site)) == []
    assert len(loads_of((site / "index.html").read_text())) > 5


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://unpkg.com/x"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        "<style>@import 'https://fonts.example/css';</style>",
        '<style>@font-face {src: local("x"), url("https://fonts.example/x.woff2")}</style>',
        '<img src="http://192.0.2.1/x.png">',
    ],
)
def test_what_is_loaded_from_elsewhere_is_found(html: str) -> None:
    assert any(map(is_outside, loads_of(html)))


def test_every_page_of_the_tree_is_one_of_the_site(site: Path) -> None:
    docs = TREE / "docs"
    wanted = {str(each.relative_to(docs).with_suffix(".html")) for each in docs.rglob("*.md")}
    wanted |= {"changes.html", "contributing.html", "trusted.html", "adr/index.html"}
    built = {str(each.relative_to(site)) for each in site.rglob("*.html")}
    assert built == wanted | {"404.html"}


def test_every_decision_is_listed(site: Path) -> None:
    page = (site / "adr/index.html").read_text()
    for each in (TREE / "docs" / "adr").glob("*.md"):
        assert f'href="{each.stem}.html"' in page


def test_no_page_shows_markdown_as_it_was_written(site: Path) -> None:
    for page in site.rglob("*.html"):
        shown = re.sub(
            r"<(pre|code|script)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL | re.IGNORECASE
        )
        assert not re.search(r"```|\|---|<p>\||\]\(|^- ", shown, re.MULTILINE), page.name


@pytest.mark.timeout(180)
def test_a_link_to_what_is_not_there_ends_the_build(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("docs", "deploy"):
        shutil.copytree(TREE / name, tree / name)
    for name in ("mkdocs.yml", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        shutil.copy(TREE / name, tree)
    page = tree / "docs" / "roll-back.md"
    text = page.read_text()
    for wrong in ("[a](nowhere.md)", "[b](running.md#nothing-of-that-name)", "[c](../nowhere.md)"):
        page.write_text(f"{text}\n{wrong}\n")
        assert build(tmp_path / "site", tree).returncode != 0, wrong
    page.write_text(text)
    (tree / "docs" / "forgotten.md").write_text("# Not in the navigation\n")
    assert build(tmp_path / "site", tree).returncode != 0


def test_the_search_works_where_the_pages_are_read_from_a_disk(site: Path) -> None:
    asked: list[str] = []
    errors: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        view = browser.new_page()
        view.on("request", note)
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.goto(f"file://{site}/index.html")
        view.keyboard.press("/")
        view.keyboard.type("reset-floor")
        found = view.locator(".md-search-result__link", has_text="harmony-agent reset-floor")
        found.first.click()
        expect(view).to_have_url(re.compile(r"/commands\.html.*#harmony-agent-reset-floor$"))
        browser.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
