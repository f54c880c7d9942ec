"""The documentation site: what goes into it, and what its checks find."""

import dataclasses
import re
import tomllib

import pytest

from docs.site.finish import finish, render
from docs.site.links import broken_links
from docs.site.pages import ROOT, navigation, places, stage
from docs.site.reference import api_page, card_page, commands_page
from fre_runtime.card import Card, Layer

HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    target = tmp_path_factory.mktemp("site") / "pages"
    stage(target)
    return target


def test_every_page_of_the_repository_is_in_the_menu(staged):
    menu = navigation(staged).values()
    listed = [page for entry in menu for page in ([entry] if isinstance(entry, str) else entry)]
    assert sorted(listed) == sorted(p.relative_to(staged).as_posix() for p in staged.rglob("*.md"))
    assert len(set(listed)) == len(listed)
    shown = {path.relative_to(ROOT).as_posix() for path in places()}
    assert {"README.md", "docs/tutorial.md", "benchmarks/README.md"} <= shown
    assert {p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")} <= shown


def test_readers_see_no_hidden_comment_and_links_follow_the_pages(staged):
    home = (staged / "index.md").read_text()
    assert "skip:" not in home
    assert "invisible-code-block" not in home
    assert "](how-to/live.md)" in home
    assert "](benchmarks/index.md)" in home
    assert "](gallery.png)" in home


def test_programs_are_read_and_not_opened(staged):
    """A client's page loads what is not in the site."""
    browser = (staged / "embedding/browser.md").read_text()
    assert "embedding/javascript/index.html.txt)" in browser
    assert (staged / "embedding/javascript/index.html.txt").is_file()
    assert not list(staged.rglob("*.html"))


def test_the_card_page_has_every_field():
    page = card_page()
    for kind in (Card, Layer):
        section = page.partition(f"## {kind.__name__}\n")[2].partition("\n## ")[0]
        names = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert names == [field.name for field in dataclasses.fields(kind)]
    assert "k, the rank of the subspace" in page
    assert "| `str | None` |" in page


def test_the_commands_page_has_every_command_and_option():
    page = commands_page()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert [h for h in HEADING.findall(page) if h.startswith("fre-")] == list(scripts)
    for option in ("--keep-aspect", "--max-pixels N", "--roi X,Y,W,H|FILE.json", "MODEL"):
        assert f"`{option}`" in page
    assert "%(default)s" not in page
    assert "%%" not in page


def test_the_python_page_has_every_public_name():
    page = api_page()
    for name in ("fre_runtime.Detector", "fre_edge.fit", "fre_export.ExportOptions"):
        assert f"::: {name}\n" in page


def test_equations_become_mathml():
    done = render(r'<p><span class="arithmatex">\(a &lt; \frac{1}{2}\)</span></p>')
    assert done.startswith('<p><math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">')
    assert "<mfrac>" in done
    assert "arithmatex" not in done


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        ('<a href="other.html">', "no such file"),
        ('<a href="#nowhere">', "no such place"),
        ('<a href="deep/page.html#nowhere">', "no such place"),
        ('<img src="picture.png">', "no such file"),
        ('<script src="https://example.org/x.js">', "loaded from outside"),
        ('<link href="//example.org/font.css">', "loaded from outside"),
    ],
)
def test_a_broken_link_is_named(tmp_path, body, trouble):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/page.html").write_text('<h1 id="here">x</h1><a href="../index.html#top">')
    good = '<h1 id="top">x</h1><a href="deep/page.html#here"><a href="https://example.org">'
    (tmp_path / "index.html").write_text(good)
    assert list(broken_links(tmp_path)) == []
    (tmp_path / "index.html").write_text(good + body)
    (line,) = broken_links(tmp_path)
    assert line.startswith("index.html: ")
    assert trouble in line


def test_nothing_is_fetched_from_elsewhere(tmp_path):
    (tmp_path / "deep").mkdir()
    page = tmp_path / "deep" / "page.html"
    page.write_text('<script src="https://unpkg.com/iframe-worker/shim"></script>')
    (tmp_path / "worker.js").write_text("")
    finish(tmp_path)
    assert 'src="../worker.js"' in page.read_text()
    assert list(broken_links(tmp_path)) == []


def anchors(text):
    """The anchors that GitHub makes of headings."""
    slugs = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text))
    return {slug.replace(" ", "-") for slug in slugs}


@pytest.mark.parametrize(
    "page",
    [path for path in places() if path.suffix == ".md"],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_links_between_files_of_the_repository_hold(page):
    text = re.sub(r"(`{3,}).*?\1", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        generated = ROOT / "docs" in found.parents and found.stem in ("card", "commands")
        assert found.exists() or generated, f"{page.name}: {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found.read_text(encoding="utf-8")), f"{page.name}: {target}"
