"""Which good photos are for training and which for testing, drawn anew by seed.

Near-copies on both sides make a test too easy: where groups are known (the exposures of one part,
a burst), whole groups go to one side.
"""

import os
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fre_runtime.errors import DataError
from fre_runtime.files import IMAGE_SUFFIXES, labelled_images, list_files
from fre_runtime.groups import GroupTable

GroupOf = Mapping[Path, object]
NAME = "name:"


@dataclass(frozen=True)
class Split:
    """The good photos of one category."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]

    @property
    def good(self) -> tuple[Path, ...]:
        """All of them, in an order that no split changes."""
        return tuple(sorted((*self.train, *self.test), key=lambda path: (path.name, path)))


def given(category: Path) -> Split:
    """The split as the folder has it: ``train/good`` and ``test/good``."""
    sides = (
        [p for p in list_files(category / side / "good") if p.suffix.lower() in IMAGE_SUFFIXES]
        for side in ("train", "test")
    )
    return Split(*(tuple(side) for side in sides))


def read_groups(source: str, split: Split) -> dict[Path, object]:
    """Group of each good photo.

    Parameters
    ----------
    source
        The path of a CSV file with the columns file,group; or ``name:REGEX``, where the text that
        the regular expression finds in a photo's name (its first group, if it has one) is what
        photos of one part share.

    Raises
    ------
    DataError
        When a photo has no group, or the folder itself has a group on both sides.
    """
    good = list(split.good)
    if source.startswith(NAME):
        group_of: dict[Path, object] = {}
        for path in good:
            match = re.search(source.removeprefix(NAME), path.name)
            if match is None:
                raise DataError(
                    f"{path.name}: {source} finds nothing in this name; mend it, or give a CSV "
                    "file with the columns file,group"
                )
            group_of[path] = match[1] if match.re.groups else match[0]
    else:
        table = GroupTable.read(Path(source))
        group_of = dict(zip(good, table.assign(good).tolist(), strict=True))
    both = {group_of[path] for path in split.train} & {group_of[path] for path in split.test}
    if both:
        raise DataError(
            f"{len(both)} groups, the first {min(both, key=str)!r}, lie in both train/good and "
            "test/good; a grouped category keeps each on one side"
        )
    return group_of


def redrawn(split: Split, seed: int, group_of: GroupOf | None = None) -> Split:
    """Another random split with as many photos to train on.

    With groups, whole ones are drawn until there are at least as many: at most one group less one
    photo too many.
    """
    units: dict[object, list[Path]] = {}
    for path in split.good:
        units.setdefault(path if group_of is None else group_of[path], []).append(path)
    order = list(units.values())
    random.Random(seed).shuffle(order)
    train: list[Path] = []
    test: list[Path] = []
    for unit in order:
        (train if len(train) < len(split.train) else test).extend(unit)
    return Split(tuple(train), tuple(test))


def draw(split: Split, seed: int, group_of: GroupOf | None = None) -> Split:
    """Draw by ``seed``: 0 is the split as given, so that it can be held against published ones."""
    return split if seed == 0 else redrawn(split, seed, group_of)


def seen_in_training(split: Split, group_of: GroupOf) -> int:
    """Good test photos of a group that was trained on: what a split leaks."""
    trained = {group_of[path] for path in split.train}
    return sum(group_of[path] in trained for path in split.test)


def lay_out(split: Split, category: Path, out: Path, kinds: set[str] | None = None) -> Path:
    """Build ``out`` as an MVTec-layout category: ``split``, and the defects of ``category``.

    Only defects of ``kinds``, if given. Files are linked, or copied where links cannot be made.
    """
    names = [path.name for path in split.good]
    repeated = len(set(names)) < len(names)  # MVTec AD numbers each folder from 000
    for side, paths in (("train", split.train), ("test", split.test)):
        for path in paths:
            origin = path.relative_to(category).parts[0]
            name = f"{origin}_{path.name}" if repeated else path.name
            _link(path, out / side / "good" / name)
    for image in labelled_images(category):
        if image.is_defective and (kinds is None or image.kind in kinds):
            _link(image.path, out / image.path.relative_to(category))
            if image.mask is not None:
                _link(image.mask, out / image.mask.relative_to(category))
    return out


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(source.absolute(), target)
    except OSError:
        shutil.copyfile(source, target)
