"""One self-contained HTML file: rendered from a template, written whole or not at all."""

from pathlib import Path
from typing import Any

from fre_runtime.errors import MissingDependencyError, UsageError
from fre_runtime.whole_file import check_writable, write_whole

SUFFIXES = (".html", ".htm")


def require_libraries() -> None:
    """Fail before minutes of work, not after.

    Raises
    ------
    MissingDependencyError
        When Jinja or matplotlib is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"a report needs {error.name}, which is not installed; run: "
            "pip install 'fre-edge[report]'"
        ) from error


def check_target(path: Path) -> None:
    """Find out early that a report cannot be written; makes the folder that it goes into.

    Raises
    ------
    UsageError
        When ``path`` does not end in ``.html``: a slip of the hand must not cost a photo.
    OutputError
        When ``path`` is a folder, or its folder cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--report {path}: must end in {' or '.join(SUFFIXES)}")
    check_writable(path)


def render(template: str, **values: Any) -> str:  # noqa: ANN401 - whatever the template shows
    """Fill a template of this package; every value is escaped: names of files can be hostile."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fre_runtime.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def write_page(path: Path, html: str) -> None:
    """Write the page under its name once it is complete.

    Raises
    ------
    OutputError
        When the disk is full or not writable.
    """
    # Names of files need not be valid Unicode.
    write_whole(path, html.encode("utf-8", errors="backslashreplace"))
