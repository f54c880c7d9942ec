"""The HTML pages, each one file that holds its style and script and loads nothing from elsewhere.

Their Content-Security-Policy lists the hashes of exactly these blocks: nothing that comes in by
an upload, a file name or an error message can run.
"""

import base64
import hashlib
import re
from importlib.resources import files

from starlette.responses import HTMLResponse


def load_page(name: str, status: int = 200) -> HTMLResponse:
    """The page ``name`` of this package, e.g. ``page.html``, as an answer that can be reused."""
    html = (files("fre_runtime.serve") / name).read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_hashes(html, 'script')}; "
        f"style-src {_hashes(html, 'style')}; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(html, status, {"Content-Security-Policy": policy})


def _hashes(html: str, tag: str) -> str:
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = (hashlib.sha256(block.encode()).digest() for block in blocks)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
