"""What is measured: categories in MVTec layout, MVTec roots, and the solar cells."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import elpv
from benchmarks.quality.published import OBJECTS, TEXTURES
from benchmarks.quality.splits import GroupOf, Split, given, read_groups
from fre_runtime.errors import DataError

CELLS = "elpv_mono"


@dataclass(frozen=True)
class Category:
    """A data set whose split is drawn anew for each seed."""

    name: str
    folder: Path
    split: Split
    """As the folder has it; draw 0."""
    group_of: GroupOf | None = field(default=None, repr=False)
    """Photos with one value stay on one side; None = each photo for itself."""

    @classmethod
    def read(cls, text: str, groups: str | None = None) -> "Category":
        """Read ``FOLDER`` or ``NAME=FOLDER``; see `read_groups`."""
        name, separator, path = text.partition("=")
        folder = Path(path if separator else text)
        if not (folder / "train" / "good").is_dir() or not (folder / "test" / "good").is_dir():
            raise DataError(f"{folder}: has no train/good and test/good; give a category")
        split = given(folder)
        group_of = None if groups is None else read_groups(groups, split)
        return cls(name if separator else folder.absolute().name, folder, split, group_of)

    @property
    def groups(self) -> int | None:
        """How many groups there are."""
        return None if self.group_of is None else len(set(self.group_of.values()))


@contextmanager
def categories(paths: list[str], grouped: list[tuple[str, str]]) -> Iterator[list[Category]]:
    """Categories as given on the command line, and the solar cells as long as this is open."""
    read = [Category.read(path) for path in paths]
    read += [Category.read(path, groups) for path, groups in grouped]
    names = [CELLS, *(category.name for category in read)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"{min(twice)}: is the name of two categories; write NAME=FOLDER")
    with TemporaryDirectory() as root:
        cells = Path(root) / CELLS
        elpv.lay_out(cells)
        yield [*read, Category.read(str(cells))]


def mvtec_categories(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Categories below ``root``, in the order of the published tables, and MVTec AD's missing ones.

    Textures, objects, then what MVTec AD does not have, by name.

    Raises
    ------
    DataError
        When there is none.
    """
    found = {
        path.name: path
        for path in (sorted(root.iterdir()) if root.is_dir() else [])
        if (path / "train" / "good").is_dir() and (path / "test").is_dir()
    }
    if not found:
        raise DataError(f"{root}: holds no category (a folder with train/good and test)")
    known = (*TEXTURES, *OBJECTS)
    order = [*(name for name in known if name in found), *(n for n in found if n not in known)]
    missing = [name for name in known if name not in found]
    return {name: found[name] for name in order}, missing
