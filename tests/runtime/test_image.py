import struct
import time
import zlib

import cv2
import numpy as np
import pytest

from fre_runtime.errors import ImageError
from fre_runtime.header import image_size
from fre_runtime.image import check_image, encode_image, read_image, resize

SUFFIXES = [".png", ".jpg", ".bmp", ".tiff", ".webp"]


@pytest.fixture
def photo(make_photo):
    return make_photo(0, 60, 90)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reads_every_format(photo, suffix, tmp_path):
    data = encode_image(photo, suffix)
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(data)
    for source in (data, path, str(path)):
        image = read_image(source)
        assert image.shape == photo.shape
        assert np.abs(image.astype(int) - photo).mean() < 6
    assert image_size(data) == (90, 60)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.97])
def test_refuses_a_cut_file(photo, suffix, share):
    data = encode_image(photo, suffix)
    with pytest.raises(ImageError, match=r"truncated|damaged|is not a JPEG|is empty"):
        read_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"BM", b"RIFF", b"II*\x00"])
def test_refuses_what_is_no_image(data):
    with pytest.raises(ImageError):
        read_image(data)


def test_refuses_what_cannot_be_opened(tmp_path):
    with pytest.raises(ImageError, match="none.png: cannot be read"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)


def png_claiming(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def test_refuses_an_enormous_image_from_its_header():
    start = time.perf_counter()
    with pytest.raises(ImageError, match="20000 x 20000 = 400000000 pixels, over the limit"):
        read_image(png_claiming(20000, 20000))
    assert time.perf_counter() - start < 0.5  # nothing was decoded
    with pytest.raises(ImageError, match="over the limit of 100"):
        read_image(encode_image(np.zeros((11, 10, 3), np.uint8), ".png"), max_pixels=100)


def test_grey_alpha_and_depth_are_handled_once(photo):
    grey = photo[..., 0]
    expected = np.repeat(grey[..., None], 3, 2)
    for variant in (grey, grey.astype(np.uint16) * 257):
        for suffix in (".png", ".tiff"):
            np.testing.assert_array_equal(
                read_image(cv2.imencode(suffix, variant)[1].tobytes()), expected
            )
    alpha = np.dstack([photo[..., ::-1], np.zeros(photo.shape[:2], np.uint8)])
    np.testing.assert_array_equal(read_image(cv2.imencode(".png", alpha)[1].tobytes()), photo)


def test_floating_point_pixels_are_refused(photo):
    data = cv2.imencode(".tiff", photo.astype(np.float32))[1].tobytes()
    with pytest.raises(ImageError, match="pixel type that is not supported"):
        read_image(data)


def test_exif_orientation_is_applied(photo):
    jpeg = encode_image(photo, ".jpg")
    tiff = (
        b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
        + b"\0" * 4
    )
    exif = b"Exif\0\0" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    upright = read_image(turned)
    assert upright.shape == (90, 60, 3)
    np.testing.assert_array_equal(upright, np.rot90(read_image(jpeg), -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "must be uint8 in 0..255, got float32"),
        (np.zeros((4, 4), np.uint8), r"must have shape \(H, W, 3\) in RGB order, got \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"got \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)"),
        ([[1]], "got list"),
    ],
)
def test_arrays_are_checked(image, message):
    with pytest.raises(ImageError, match=message):
        check_image(image)


@pytest.mark.parametrize("size", [(32, 32), (60, 90), (200, 300), (30, 200), (200, 30), (1, 1)])
def test_resizes_each_axis_by_its_own_rule(photo, size):
    resized = resize(photo, *size)
    assert resized.shape == (*size, 3)
    if size == (30, 200):  # shrinks in height by averaging, grows in width linearly
        expected = photo.reshape(30, 2, 90, 3).mean(1)
        np.testing.assert_allclose(resized[:, 100], expected[:, 45], atol=9)


def test_shrinking_averages_and_does_not_alias():
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    small = resize(noise, 256, 256)
    expected = noise.reshape(256, 4, 256, 4, 3).mean((1, 3))
    np.testing.assert_allclose(small, expected, atol=1)  # each halving rounds


def test_large_frames_take_the_fast_way_to_almost_the_same(photo):
    frame = resize(photo, 1000, 1200)
    straight = cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(resize(frame, 256, 256) - straight).mean() < 1
    half = cv2.resize(frame, (600, 500), interpolation=cv2.INTER_AREA)
    double = cv2.resize(half, (512, 512), interpolation=cv2.INTER_LINEAR)
    expected = cv2.resize(double, (256, 256), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resize(frame, 256, 256), expected)


def test_a_line_of_one_pixel_counts_wherever_it_lies():
    answers = []
    for column in range(500, 540):
        frame = np.zeros((1000, 1200, 3), np.uint8)
        frame[:, column] = 255
        answers.append(resize(frame, 256, 256)[100].sum())
    assert min(answers) > 0.8 * max(answers)


@pytest.mark.parametrize("shape", [(999, 1199), (1000, 1199), (3000, 2002), (300, 400)])
def test_frames_that_cannot_be_halved_far_enough_are_averaged(shape, make_photo):
    frame = cv2.resize(make_photo(0), shape[::-1])
    expected = frame
    while all(side % 2 == 0 and side >= 512 for side in expected.shape[:2]):
        half = expected.shape[1] // 2, expected.shape[0] // 2
        expected = cv2.resize(expected, half, interpolation=cv2.INTER_AREA)
    expected = cv2.resize(expected, (256, 256), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resize(frame, 256, 256), expected)
