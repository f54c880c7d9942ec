"""What the site is made of: the pages of the repository, and those written from the code."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import tables
from docs.site.reference import api_page, card_page, commands_page

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages that do not lie in docs/ or benchmarks/, and where they lie in the site."""
WRITTEN = {
    "contracts/card.md": card_page,
    "contracts/commands.md": commands_page,
    "api.md": api_page,
}
"""Pages that are written from the code."""
NOT_SHOWN = {".py", ".pyc", ".json", ".txt", ".toml"}
AS_THEY_ARE = {".md", ".png", ".svg"}
"""All else that is shown is a program, which a reader wants to read: it becomes a text."""
HIDDEN = re.compile(r"^ *<!-- (?:skip:.*?|invisible-code-block:.*?)-->\n", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[([^\[\]]*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")

MENU = ("index.md", "tutorial.md", "how-to", "embedding", "contracts", "maths.md", "api.md")
"""What comes first in the menu: pages, and folders with all that lies in them. The rest follows."""
FIRST = ("index.md", "contract.md", "model-directory.md")
"""What comes first in a folder; the rest is sorted by title."""


def stage(target: Path) -> None:
    """Lay out all pages in ``target`` as Zensical is to find them."""
    shutil.rmtree(target, ignore_errors=True)
    for source, place in places().items():
        out = target / place
        out.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            out.write_text(page(source, place), encoding="utf-8")
        else:
            shutil.copyfile(source, out)
    for place, write in WRITTEN.items():
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        (target / place).write_text(write(), encoding="utf-8")
    for name in ("style.css", "worker.js"):
        shutil.copyfile(Path(__file__).with_name(name), target / name)
    home, benchmarks = target / "index.md", target / "benchmarks" / "index.md"
    tables.main(["--readme", str(home), "--benchmarks", str(benchmarks)])


def places() -> dict[Path, Path]:
    """Every file of the repository that is shown, and where it lies in the site."""
    found = {ROOT / name: Path(place) for name, place in ELSEWHERE.items()}
    for folder, place in (("docs", "."), ("benchmarks", "benchmarks")):
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT / folder)
            ours = "site" in inside.parts[:1] or "__pycache__" in inside.parts
            if path.is_file() and not ours and path.suffix not in NOT_SHOWN:
                name = "index.md" if inside.name == "README.md" else inside.name
                name += "" if path.suffix in AS_THEY_ARE else ".txt"
                found[path] = Path(place) / inside.with_name(name)
    return found


def page(source: Path, place: Path) -> str:
    """A page of the repository as it stands in the site: no hidden comments, links that hold."""
    known = {path.resolve(): new for path, new in places().items()}

    def moved(match: re.Match[str]) -> str:
        old = (source.parent / match[2]).resolve()
        if old.is_dir():
            return match[1]  # a folder is nothing to look at in a site
        if old not in known:
            return match[0]
        up = "../" * (len(place.parts) - 1)
        return f"[{match[1]}]({up}{known[old].as_posix()}{match[3] or ''})"

    text = HIDDEN.sub("", source.read_text(encoding="utf-8"))
    return LINK.sub(moved, text)


def navigation(target: Path) -> dict[str, str | list[str]]:
    """The menu, with every page of ``target``: title and page, or title and pages of a folder."""
    found = sorted(target.iterdir(), key=lambda path: (_rank(MENU, path.name), path.name))
    entries: dict[str, str | list[str]] = {}
    for path in found:
        pages = sorted(path.rglob("*.md"), key=lambda p: (_rank(FIRST, p.name), title(p)))
        if pages:
            named = path.name.replace("-", " ").capitalize()
            entries[named] = [inside.relative_to(target).as_posix() for inside in pages]
        elif path.suffix == ".md":
            entries["Home" if path.stem == "index" else title(path)] = path.name
    return entries


def _rank(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def title(path: Path) -> str:
    """The first heading of a page."""
    heading = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return heading[1] if heading else path.stem
