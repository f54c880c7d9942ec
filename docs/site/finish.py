"""What is done to the built HTML: equations become MathML, so that they need no script and no font.

The one script that Zensical would fetch from elsewhere, a stand-in for web workers in pages opened
from disk, is replaced by ours.
"""

import html
import os
import re
from pathlib import Path

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)
SHIM = "https://unpkg.com/iframe-worker/shim"


def render(text: str) -> str:
    r"""HTML with each ``\(...\)`` and ``\[...\]`` that Arithmatex marked as MathML."""
    return FORMULA.sub(_mathml, text)


def finish(site: Path) -> None:
    """Finish every page of a built site."""
    (site / "404.html").unlink(missing_ok=True)  # for servers; its links begin at their root
    for path in site.rglob("*.html"):
        worker = Path(os.path.relpath(site / "worker.js", path.parent)).as_posix()
        text = render(path.read_text(encoding="utf-8")).replace(SHIM, worker)
        path.write_text(text, encoding="utf-8")
    for path in site.glob("search.js*"):  # what is found is shown as text
        index = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\\\\[()]", "", index), encoding="utf-8")


def _mathml(match: re.Match[str]) -> str:
    latex = html.unescape(match[2]).strip()
    display = "block" if latex.startswith(r"\[") else "inline"
    return str(convert(latex[2:-2].strip(), display=display))
