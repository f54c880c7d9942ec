"""Build the site: ``python -m docs.site``, from the root of the repository, into build/site."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from docs.site.finish import finish
from docs.site.links import broken_links
from docs.site.pages import ROOT, navigation, stage
from docs.site.reference import PACKAGES

BUILD = ROOT / "build" / "site-pages"
SITE = ROOT / "build" / "site"


def configuration() -> str:
    """zensical.toml with what depends on the pages and on the place."""
    entries = ", ".join(
        f"{{ {json.dumps(title)} = {json.dumps(where)} }}"
        for title, where in navigation(BUILD / "pages").items()
    )
    paths = json.dumps([str((ROOT / path).resolve()) for path in PACKAGES.values()])
    given = Path(__file__).with_name("zensical.toml").read_text(encoding="utf-8")
    added = f'site_dir = "site"\nnav = [{entries}]\n\n[project.theme]'
    handler = "[project.plugins.mkdocstrings.handlers.python"
    given = given.replace("[project.theme]", added, 1)
    return given.replace(
        f"{handler}.options]", f"{handler}]\npaths = {paths}\n\n{handler}.options]"
    )


def main() -> int:
    """Stage, build, render, check."""
    shutil.rmtree(BUILD, ignore_errors=True)
    stage(BUILD / "pages")
    (BUILD / "zensical.toml").write_text(configuration(), encoding="utf-8")
    zensical = [Path(sys.executable).parent / "zensical", "build", "--strict"]
    done = subprocess.run(zensical, cwd=BUILD, check=False)
    if done.returncode:
        return done.returncode
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(BUILD / "site", SITE)
    finish(SITE)
    broken = list(broken_links(SITE))
    sys.stderr.writelines(f"error: {line}\n" for line in broken)
    if not broken:
        sys.stdout.write(f"{SITE.relative_to(ROOT)}/index.html\n")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
