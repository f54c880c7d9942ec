"""Every block of the pages runs, prints what the page shows, or says why it cannot."""

import re

import pytest

from tests.docs.blocks import ROOT, RUN, SHOWN, fences, run_page
from tests.docs.conftest import make_photos

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CLIENTS, EMBEDDING = ROOT / "tests" / "clients", ROOT / "docs" / "embedding"


def left_to_clients(page):
    """Pages that a test of tests/clients opens, since it runs their blocks where it installs."""
    if EMBEDDING not in page.parents:
        return False
    opened = f'page("{page.relative_to(EMBEDDING).as_posix()}")'
    return any(opened in test.read_text(encoding="utf-8") for test in CLIENTS.glob("test_*.py"))


def name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if not left_to_clients(p)], ids=name)
def test_the_blocks_of_a_page_run(page, folder, port, serve, make_video):
    helpers = {"make_photos": make_photos, "make_video": make_video, "serve": serve}
    for skipped in run_page(page, port, **helpers):
        assert re.search(r": [a-z]+ [a-z]+", skipped), f"say why, in words: {skipped}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_fence_says_its_language(page):
    known = {*RUN, *SHOWN} if not left_to_clients(page) else None
    for line, language in fences(page):
        assert language, f"{name(page)}:{line}: a fence without a language"
        assert known is None or language in known, (
            f"{name(page)}:{line}: nobody runs {language}; add it to RUN or SHOWN in blocks.py"
        )
