"""Checks that every link of a built site leads somewhere, and that nothing comes from outside."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}
"""Attributes by which a page loads something as soon as it opens."""


@dataclass
class Page(HTMLParser):
    """Links and anchors of one page."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[tuple[str, str]] = field(default_factory=list)
    """Tag and address of each."""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links and anchors."""
        values = dict(attrs)
        self.anchors.update(name for key in ("id", "name") if (name := values.get(key)))
        address = values.get(LOADED.get(tag, "href"))
        if address is not None and tag in (*LOADED, "a"):
            self.links.append((tag, address))


def broken_links(site: Path) -> Iterator[str]:
    """One line for each link that leads nowhere, and for each asset from outside."""
    pages = {path: Page(path) for path in sorted(site.resolve().rglob("*.html"))}
    for page in pages.values():
        for tag, address in page.links:
            trouble = _trouble(pages, page, tag, address)
            if trouble:
                yield f"{page.path.relative_to(site.resolve())}: {address}: {trouble}"


def _trouble(pages: dict[Path, Page], page: Page, tag: str, address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        loads = tag in LOADED and parts.scheme != "data"
        return "is loaded from outside; the site must open offline" if loads else ""
    target = page.path.parent / unquote(parts.path) if parts.path else page.path
    target = target.resolve()
    if not target.is_file():
        return "there is no such file"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return "there is no such place on that page"
    return ""
