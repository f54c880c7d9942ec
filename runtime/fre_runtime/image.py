"""The one place where photos become arrays: training, export and runtime all call it.

Rules, the same for every caller:

* JPEG, PNG, BMP, TIFF and WebP; the pixel count is read from the header before decoding.
* EXIF orientation is applied. Grey becomes three equal channels, alpha is ignored,
  16-bit is divided by 256, CMYK is converted by the decoder; the result is 8-bit RGB.
* Resizing stretches to H x W: ``INTER_AREA`` along the axes that shrink, then ``INTER_LINEAR``
  along those that grow. Large frames first take a faster way with the same result for the eye:
  while both sides are even and at least twice the wanted ones, they are halved (``INTER_AREA``,
  four pixels to one); if that leaves at most three times H and W, ``INTER_LINEAR`` to 2H x 2W and
  one more halving finish it.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fre_runtime.errors import ImageError
from fre_runtime.header import image_size

Image = NDArray[np.uint8]
"""A uint8 array of shape (H, W, 3), RGB, 0..255."""

MAX_PIXELS = 64_000_000
"""Largest image decoded by default, in pixels: a 20 KB PNG can unpack to gigabytes."""

MAX_BYTES = 1 << 30
"""Largest file that is read at all."""

RESIZE_RULE = "halve-area-linear"
"""Name of the resize rule above, as the model card records it."""


def read_image(source: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode one photo.

    Parameters
    ----------
    source
        A path, or the bytes of an encoded image.
    max_pixels
        Larger images are refused from their header, before anything is decoded.

    Returns
    -------
    uint8 array of shape (H, W, 3), RGB, 0..255, upright.

    Raises
    ------
    ImageError
        When the file cannot be opened, is not an image, is truncated or too large.
    """
    if isinstance(source, bytes):
        name, data = f"image of {len(source)} bytes", source
    else:
        name = str(source)
        data = _read_bytes(Path(source))
    size = image_size(data)
    if size is None:
        what = "is empty" if not data else "is not a JPEG, PNG, BMP, classic TIFF or WebP image"
        raise ImageError(f"{name}: {what}")
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} = {width * height} pixels, over the limit of "
            f"{max_pixels}; shrink it, or raise the limit with --max-pixels (max_pixels=)"
        )
    # libpng reports a cut file on stderr by itself; looking for the end mark first keeps it quiet.
    if data.startswith(b"\x89PNG") and b"IEND" not in data:
        raise ImageError(f"{name}: is truncated or damaged")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ImageError(f"{name}: cannot be decoded ({error.err})") from error
    if image is None:
        raise ImageError(f"{name}: is truncated, damaged, or of a pixel type that is not supported")
    if sorted(image.shape[:2]) != sorted(size):  # EXIF orientation may have swapped the sides
        raise ImageError(f"{name}: decodes to {image.shape[:2]}, its header says {size[::-1]}")
    return check_image(image, name)


def _read_bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ImageError(f"{path}: cannot be read (it is no regular file)")
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(f"{path}: has {path.stat().st_size} bytes, the limit is {MAX_BYTES}")
        return path.read_bytes()
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a NUL in the name
        raise ImageError(f"{str(path)!r}: cannot be read ({error})") from error


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Read a ground-truth mask: True where any colour channel is not zero, bool (H, W).

    Raises
    ------
    ImageError
        When the file is no image.
    """
    read_image(path, max_pixels)  # refuses whatever is not an image
    mask: Any = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    return np.asarray(mask != 0 if mask.ndim == 2 else (mask[..., :3] != 0).any(2))


def check_image(image: NDArray[Any], name: str = "image") -> Image:
    """Return ``image`` if it is a uint8 array of shape (H, W, 3), else raise `ImageError`."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = getattr(image, "dtype", type(image).__name__)
        raise ImageError(f"{name}: pixels must be uint8 in 0..255, got {found}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ImageError(f"{name}: must have shape (H, W, 3) in RGB order, got {image.shape}")
    return image


def to_rgb(picture: NDArray[Any], max_pixels: int = MAX_PIXELS) -> Image:
    """What a camera or a video gives (BGR, BGRA or grey, 8 bits) as a uint8 (H, W, 3) RGB image.

    Raises
    ------
    ImageError
        For any other shape or type, since bits that are guessed would be scored wrongly, and over
        ``max_pixels``.
    """
    channels = picture.shape[2] if picture.ndim == 3 else 1
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or channels not in codes:
        raise ImageError(
            f"the frame is {picture.dtype} of shape {picture.shape}; set the camera to 8 bits "
            "with 1, 3 or 4 channels"
        )
    if not 0 < picture.shape[0] * picture.shape[1] <= max_pixels:
        raise ImageError(
            f"the frame has the shape {picture.shape}, the limit is {max_pixels} pixels; make it "
            "smaller, or raise the limit with --max-pixels"
        )
    return check_image(np.asarray(cv2.cvtColor(picture, codes[channels]), np.uint8))


def resize(image: Image, height: int, width: int) -> Image:
    """Stretch a uint8 (H, W, 3) image to (height, width, 3) by `RESIZE_RULE`."""
    frame = image
    while _can_halve(image.shape[0], height) and _can_halve(image.shape[1], width):
        image = _halved(image)
    if image.shape[:2] == (height, width):
        return image
    if image is not frame and image.shape[0] <= 3 * height and image.shape[1] <= 3 * width:
        return _halved(_resized(image, 2 * height, 2 * width, cv2.INTER_LINEAR))
    shrunk = min(image.shape[0], height), min(image.shape[1], width)
    if shrunk != image.shape[:2]:
        image = _resized(image, *shrunk, cv2.INTER_AREA)
    if shrunk != (height, width):
        image = _resized(image, height, width, cv2.INTER_LINEAR)
    return image


def _can_halve(side: int, wanted: int) -> bool:
    return side % 2 == 0 and side >= 2 * wanted


def _halved(image: Image) -> Image:
    return _resized(image, image.shape[0] // 2, image.shape[1] // 2, cv2.INTER_AREA)


def _resized(image: Image, height: int, width: int, interpolation: int) -> Image:
    resized: Any = cv2.resize(image, (width, height), interpolation=interpolation)
    return resized  # type: ignore[no-any-return]


def encode_image(image: Image, suffix: str, quality: int = 95) -> bytes:
    """Encode a uint8 (H, W, 3) RGB image; ``suffix`` names the format, e.g. ``.png``.

    ``quality``, 0..100, is JPEG's.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    ok, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise ImageError(f"cannot encode an image of shape {image.shape} as {suffix}")
    return bytes(data)
