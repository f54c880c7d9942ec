"""JSON answers that may name any file."""

import json
from typing import Any

from starlette.responses import JSONResponse


class JsonAnswer(JSONResponse):
    """JSON in UTF-8; what is not valid Unicode in the name of a file is escaped."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - any JSON value
        """Encode the body."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")
