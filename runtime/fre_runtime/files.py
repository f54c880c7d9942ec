"""Finding images: plain folders, and categories laid out as MVTec AD lays them out."""

from dataclasses import dataclass
from pathlib import Path

from fre_runtime.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
LAYOUT_FOLDERS = frozenset({"train", "test", "ground_truth"})
"""Folders of the MVTec layout: where one of them stands, defects may be near."""
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})


def list_files(folder: Path) -> list[Path]:
    """All files below ``folder``, sorted by path; hidden ones are left out.

    Raises
    ------
    DataError
        When the folder does not exist, is not a folder, or holds no file.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {what}; give a folder of images")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )
    if not files:
        raise DataError(f"{folder}: holds no file; give a folder with photos in it")
    return files


def good_images(folder: Path) -> list[Path]:
    """Files to learn from: ``train/good`` of an MVTec-layout category, else the folder itself.

    Raises
    ------
    DataError
        When the folder looks like a category, or several, but has no ``train/good``: it may hold
        photos of defects.
    """
    category = folder / "train" / "good"
    if category.is_dir():
        return list_files(category)
    files = list_files(folder)
    for path in files:
        if marks := LAYOUT_FOLDERS & set(path.relative_to(folder).parts[:-1]):
            raise DataError(
                f"{folder}: holds {path.relative_to(folder)} but no train/good, and a folder "
                f"named {min(marks)!r} may hold defects; give the folder of good photos itself"
            )
    return files


@dataclass(frozen=True)
class LabelledImage:
    """One labelled photo of a data set."""

    path: Path
    kind: str
    """Name of its folder under ``test``: "good", or the kind of defect."""
    mask: Path | None
    """Where the defect is: non-zero pixels; None for good parts and where no mask exists."""

    @property
    def is_defective(self) -> bool:
        """Whether the part is bad, by the name of its folder."""
        return self.kind != "good"


def labelled_images(category: Path) -> list[LabelledImage]:
    """The labelled test photos of an MVTec-layout category.

    ``test/good/*``, ``test/<defect>/*`` and, where they exist,
    ``ground_truth/<defect>/<stem>_mask.png``; with folders in between, the same on both sides.

    Raises
    ------
    DataError
        When there is no ``test`` folder, no image in it, or a folder that is nearly called "good".
    """
    test = category / "test"
    if not test.is_dir():
        raise DataError(
            f"{category}: has no folder 'test'; expected the MVTec layout "
            "(test/good, test/<defect>, ground_truth/<defect>)"
        )
    images = []
    for path in list_files(test):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        kind, *rest = path.relative_to(test).parts
        if not rest:
            raise DataError(
                f"{path}: lies in {test} itself; move it into {test / 'good'} or a folder named "
                "after its defect"
            )
        if kind != "good" and kind.strip().lower() == "good":
            raise DataError(
                f"{test / kind}: would count as a kind of defect; rename it to 'good', or to what "
                "is wrong with its parts"
            )
        images.append(LabelledImage(path, kind, mask_of(category, path)))
    if not images:
        raise DataError(f"{test}: holds no image file")
    return images


def mask_of(category: Path, photo: Path) -> Path | None:
    """Mask of a test photo of an MVTec-layout category; None for good ones and where none is.

    A photo in a folder further down has its mask in the same folder of ``ground_truth``.
    """
    place = photo.relative_to(category / "test").parent
    mask = category / "ground_truth" / place / f"{photo.stem}_mask.png"
    return mask if place.parts[0] != "good" and mask.is_file() else None
