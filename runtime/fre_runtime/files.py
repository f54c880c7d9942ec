"""Finding images: plain folders, and categories laid out as MVTec AD lays them out."""

from dataclasses import dataclass
from pathlib import Path

from fre_runtime.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
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
        raise DataError(f"{folder}: holds no file; put at least 2 photos of good parts into it")
    return files


def good_images(folder: Path) -> list[Path]:
    """Files to learn from: ``train/good`` of an MVTec-layout category, else the folder itself."""
    category = folder / "train" / "good"
    return list_files(category if category.is_dir() else folder)


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
    ``ground_truth/<defect>/<stem>_mask.png``.

    Raises
    ------
    DataError
        When there is no ``test`` folder, or no image in it.
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
        kind = path.relative_to(test).parts[0]
        mask = category / "ground_truth" / kind / f"{path.stem}_mask.png"
        images.append(
            LabelledImage(path, kind, mask if kind != "good" and mask.is_file() else None)
        )
    if not images:
        raise DataError(f"{test}: holds no image file")
    return images
