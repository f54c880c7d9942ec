"""A model directory on disk: written whole or not at all, verified before anything parses it."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fre_runtime.card import Card, Variant, read_card
from fre_runtime.errors import ArtifactError, OutputError, UsageError

CARD = "model.json"
MANIFEST = "MANIFEST.json"
GOLDEN_IMAGE = "golden/image.png"
REPORT = "report.html"
"""A page for people on what was learned; not needed to run the model."""


def golden_outputs(variant: str) -> str:
    """Path of a variant's expected outputs, below the model directory."""
    return f"golden/{variant}.npz"


@dataclass(frozen=True)
class ModelDir:
    """A verified model directory."""

    path: Path
    card: Card

    def variant(self, name: str) -> Variant:
        """Return the variant called ``name``, or raise `UsageError` listing those there are."""
        try:
            return self.card.variants[name]
        except KeyError:
            have = ", ".join(sorted(self.card.variants))
            raise UsageError(f"{self.path}: has no variant {name!r}; it has: {have}") from None


def open_model_dir(path: str | Path) -> ModelDir:
    """Check every file of a model directory against its manifest, then read its card.

    Raises
    ------
    ArtifactError
        When a file is missing, added, changed or a link, or the card is not valid.
    """
    path = Path(path)
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ArtifactError(f"{path}: {what}; give the directory that fre-export wrote")
    manifest = _read_manifest(path / MANIFEST)
    _verify(path, manifest)
    card = read_card(path / CARD)
    for name, variant in card.variants.items():
        for file in [*variant.files.values(), golden_outputs(name), GOLDEN_IMAGE]:
            if file not in manifest:
                raise ArtifactError(f"{path}: variant {name!r} names {file}, not in {MANIFEST}")
    return ModelDir(path, card)


def _read_manifest(path: Path) -> dict[str, tuple[int, str]]:
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {name: (int(entry["size"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        raise ArtifactError(
            f"{path.parent}: holds no {path.name}, so it is not a model directory; "
            "give one that fre-export wrote"
        ) from None
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError
    ) as error:  # fmt: skip
        raise ArtifactError(f"{path}: is damaged ({error!r}); export the model again") from error


def _verify(root: Path, manifest: dict[str, tuple[int, str]]) -> None:
    present = set()
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            raise ArtifactError(f"{path}: is a link; a model directory holds plain files only")
        if path.is_file() and name != MANIFEST:
            present.add(name)
    for name in sorted(manifest.keys() | {CARD}):
        if name not in present:
            raise ArtifactError(f"{root / name}: is missing; copy the whole directory again")
    if extra := sorted(present - manifest.keys()):
        raise ArtifactError(f"{root / extra[0]}: is not in {MANIFEST}; remove it")
    for name, (size, digest) in manifest.items():
        if (root / name).stat().st_size != size or sha256_of(root / name) != digest:
            raise ArtifactError(
                f"{root / name}: was changed since it was exported (sha256 differs); "
                "copy the directory again, or export the model again"
            )


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(root: Path) -> None:
    """List every file below ``root`` with its size and sha256."""
    files = {
        path.relative_to(root).as_posix(): {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(root.rglob("*"))
        if path.is_file() and path != root / MANIFEST
    }
    (root / MANIFEST).write_text(json.dumps({"files": files}, indent=2) + "\n", encoding="utf-8")


def _is_model_dir(path: Path) -> bool:
    """Whether ``path`` holds a model's card and manifest, and nothing that these do not know."""
    if path.is_symlink() or not (path / CARD).is_file():
        return False
    try:
        known = _read_manifest(path / MANIFEST).keys() | {MANIFEST}
    except ArtifactError:
        return False
    return all(p.is_dir() or p.relative_to(path).as_posix() in known for p in path.rglob("*"))


def check_writable(out: Path, *, overwrite: bool) -> None:
    """Find out early that a directory cannot be written, before hours of work are spent.

    Raises
    ------
    OutputError
        When ``out`` exists (and is not a model directory that may be overwritten), or its
        parent cannot be written.
    """
    if os.path.lexists(out) and not (overwrite and _is_model_dir(out)):
        hint = (
            "choose another --out, or pass --overwrite"
            if _is_model_dir(out)
            else "it holds more than a model, so it is left alone; choose another --out"
        )
        raise OutputError(f"{out}: already exists; {hint}")
    parent = out.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise OutputError(f"{parent}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def new_directory(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of ``out`` that becomes ``out`` on success.

    The directory appears whole (fsynced, renamed) or, on any error or Ctrl-C, not at all.

    Raises
    ------
    OutputError
        When the disk is full or not writable, or ``out`` exists and may not be overwritten.
    """
    check_writable(out, overwrite=overwrite)
    out = out.absolute()
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield temporary
        settle(temporary)
        _replace(temporary, out)
        _fsync(out.parent)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def settle(directory: Path) -> None:
    """Make all of a directory readable, and have it on disk before it takes its place."""
    for path in [*directory.rglob("*"), directory]:
        path.chmod(0o755 if path.is_dir() else 0o644)  # some writers make private files
        _fsync(path)


def _replace(new: Path, out: Path) -> None:
    if not out.exists():
        new.rename(out)
        return
    # Into a directory, not onto an empty one: Windows refuses that.
    with tempfile.TemporaryDirectory(
        prefix=f".{out.name}.old.", dir=out.parent, ignore_cleanup_errors=True
    ) as folder:
        old = out.rename(Path(folder) / out.name)
        try:
            new.rename(out)
        except OSError:
            old.rename(out)
            raise


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open directories
        return
    # Windows flushes only what is open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
