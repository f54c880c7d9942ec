"""What a layer gives, as a grid: the one place that knows how networks lay out their features.

A convolution gives (N, C, h, w); some networks keep channels last, (N, h, w, C); transformers give
tokens, (N, T, C): class and register tokens first, then one for each patch, row by row.
"""

from torch import Tensor

from fre_runtime.errors import UsageError


def to_grid(features: Tensor, image: tuple[int, int], prefix: int = 0) -> Tensor:
    """Return ``features`` as (N, C, h, w).

    Parameters
    ----------
    features
        What a layer gives for a batch of N images.
    image
        Height and width of the images in pixels; cells are as wide as they are high, which tells
        the grid's axes from the channels.
    prefix
        Tokens that the network puts before those of the patches; they are left out. Networks that
        put them in late have layers without: these are known by their count.

    Raises
    ------
    UsageError
        When the layer has no grid.
    """
    shape = tuple(features.shape[1:])
    if len(shape) == 3 and _is_grid(shape[1:], image):
        return features
    if len(shape) == 3 and _is_grid(shape[:2], image):
        return features.permute(0, 3, 1, 2)
    if len(shape) == 2:
        for first in (prefix, 0):
            grid = _grid_of(shape[0] - first, image)
            if grid is not None:
                patches = features[:, first:].transpose(1, 2)
                return patches.reshape(-1, shape[1], *grid)
    raise UsageError(
        f"gives {' x '.join(map(str, shape)) or 'one number'} an image, which is neither channels "
        "by height by width nor tokens by channels; tap a layer before it"
    )


def _is_grid(sides: tuple[int, ...], image: tuple[int, int]) -> bool:
    """Whether the sides have the image's aspect, give or take the cell that a border costs."""
    return abs(sides[0] * image[1] / image[0] - sides[1]) <= 1


def _grid_of(cells: int, image: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of so many cells, None where they do not fill a grid."""
    if cells < 1:
        return None
    nearest = round((cells * image[0] / image[1]) ** 0.5)
    for height in (nearest, nearest - 1, nearest + 1):
        if height > 0 and cells % height == 0 and _is_grid((height, cells // height), image):
            return height, cells // height
    return None
