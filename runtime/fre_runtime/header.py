"""Width and height of an encoded image from its first bytes, without decoding.

Our own, because OpenCV has no such call and the packages that do bring an HTTP client along.
"""

import struct
from collections.abc import Callable


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) in pixels as the header states them, or None.

    None means: not a JPEG, PNG, BMP, TIFF or WebP file, or its header is cut.
    """
    for magic, parse in _PARSERS:
        if data.startswith(magic):
            try:
                size = parse(data)
            except (struct.error, IndexError):
                return None
            return size if size and min(size) > 0 else None
    return None


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _bmp(data: bytes) -> tuple[int, int]:
    header_bytes = struct.unpack_from("<I", data, 14)[0]
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", data, 18)
    return abs(width), abs(height)  # a negative height means rows stored from the top


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at < len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0x00, 0xFF):  # stray or fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _tiff(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(order + "I", data, 4)[0]
    sides: dict[int, int] = {}
    for entry in range(struct.unpack_from(order + "H", data, at)[0]):
        tag, kind = struct.unpack_from(order + "HH", data, at + 2 + 12 * entry)
        if tag in sides:  # decoders differ in which of the two they believe
            return None
        if tag in (256, 257):  # ImageWidth, ImageLength
            form = "H" if kind == 3 else "I"
            sides[tag] = struct.unpack_from(order + form, data, at + 10 + 12 * entry)[0]
    return (sides[256], sides[257]) if len(sides) == 2 else None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[8:16]
    if kind == b"WEBPVP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"WEBPVP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"WEBPVP8X":
        return (
            int.from_bytes(data[24:27], "little") + 1,
            int.from_bytes(data[27:30], "little") + 1,
        )
    return None


_PARSERS: tuple[tuple[bytes, Callable[[bytes], tuple[int, int] | None]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"BM", _bmp),
    (b"II*\x00", _tiff),
    (b"MM\x00*", _tiff),
    (b"RIFF", _webp),
)
