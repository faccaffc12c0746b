import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.images import ImageRefused, decode_image, thumbnail_webp


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(size=(20, 12), mode="RGB") -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)


def blank_png(width: int, height: int) -> bytes:
    """A valid black grayscale PNG, written without ever holding its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    compressor = zlib.compressobj(1)
    row = bytes(width + 1)
    body = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_one_identity(format):
    image = noise()
    decoded = decode_image(encoded(image, format))
    assert decoded.image.tobytes() == image.tobytes()
    assert decoded.sha256 == decode_image(encoded(image, "PNG")).sha256
    assert decoded.note == ""


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_decode(format):
    assert decode_image(encoded(noise(), format)).image.size == (20, 12)


def test_identity_depends_on_shape_and_pixels():
    flat = {decode_image(encoded(Image.new("RGB", s), "PNG")).sha256 for s in ((4, 2), (2, 4))}
    assert len(flat) == 2
    changed = noise()
    changed.putpixel((0, 0), (1, 2, 3))
    assert (
        decode_image(encoded(changed, "PNG")).sha256 != decode_image(encoded(noise(), "PNG")).sha256
    )


def test_a_144_megapixel_png_is_refused_fast_without_its_pixels():
    data = blank_png(12_000, 12_000)
    assert len(data) < 700_000
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(ImageRefused, match=r"12,000 x 12,000 = 144 megapixels; the limit is 40"):
        decode_image(data)
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 0.1
    assert peak < 10 * 2**20


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"just text", "Not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "Not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "Not an image"),
        (b"\xff\xd8\xff\xe0" + b"junk" * 100, "Not an image|damaged"),
        (bytes(21 * 2**20), "21.0 MB; the limit is 20 MB"),
    ],
    ids=["empty", "text", "svg", "eps", "corrupt", "too large"],
)
def test_what_is_no_image_is_refused_with_a_reason(data, reason):
    with pytest.raises(ImageRefused, match=reason):
        decode_image(data)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_truncated_files_are_refused(format):
    data = encoded(noise((200, 200)), format)
    with pytest.raises(ImageRefused):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_animations_the_first_frame_is_taken(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    data = encoded(
        frames[0], format, save_all=True, append_images=frames[1:],
        **({"lossless": True} if format == "WEBP" else {}),
    )  # fmt: skip
    decoded = decode_image(data)
    assert decoded.image.getpixel((4, 4)) == (255, 0, 0)
    assert decoded.note == "first of several frames"


def test_cmyk_is_converted_and_said():
    decoded = decode_image(encoded(noise().convert("CMYK"), "TIFF"))
    assert decoded.image.mode == "RGB"
    assert "CMYK" in decoded.note


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    decoded = decode_image(encoded(Image.fromarray(ramp), "PNG"))
    values = np.asarray(decoded.image)[..., 0].ravel()
    np.testing.assert_array_equal(values, np.arange(256))
    assert "16-bit" in decoded.note


def test_one_channel_becomes_three_equal_ones():
    decoded = decode_image(encoded(noise(mode="L"), "PNG"))
    red, green, blue = np.moveaxis(np.asarray(decoded.image), 2, 0)
    np.testing.assert_array_equal(red, np.asarray(noise(mode="L")))
    assert (red == green).all() and (red == blue).all()


def test_transparency_is_shown_on_white():
    rgba = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    rgba.putpixel((0, 0), (10, 20, 30, 255))
    decoded = decode_image(encoded(rgba, "PNG"))
    assert decoded.image.getpixel((0, 0)) == (10, 20, 30)
    assert decoded.image.getpixel((1, 1)) == (255, 255, 255)
    palette = encoded(rgba.convert("P"), "PNG", transparency=0)
    assert decode_image(palette).note == "transparency shown on white"


def test_exif_rotation_is_applied():
    image = Image.new("RGB", (30, 10), "white")
    image.paste("black", (0, 0, 5, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it upright
    decoded = decode_image(encoded(image, "PNG", exif=exif))
    assert decoded.image.size == (10, 30)
    assert decoded.image.getpixel((5, 0)) == (0, 0, 0)


def test_damaged_exif_is_no_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise(), "JPEG", exif=exif)
    start = data.index(b"Exif") + 6
    for place in range(start, start + 18):
        for value in (0, 1, 0x7F, 0xFF):
            broken = data[:place] + bytes([value]) + data[place + 1 :]
            assert decode_image(broken).image.size in ((20, 12), (12, 20))


def test_values_without_a_fixed_range_are_refused():
    with pytest.raises(ImageRefused, match="floating-point"):
        decode_image(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))
    with pytest.raises(ImageRefused, match="32-bit"):
        decode_image(encoded(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF"))


def test_one_pixel_is_an_image():
    assert decode_image(encoded(Image.new("RGB", (1, 1)), "PNG")).image.size == (1, 1)


@given(st.binary(max_size=200), st.sampled_from(["PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG"]))
@settings(max_examples=300, deadline=None)
def test_garbled_files_decode_or_are_refused(garbage, format):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise(), format, **({} if format in ("GIF", "BMP") else {"exif": exif}))
    middle = len(data) // 3
    try:
        decode_image(data[:middle] + garbage + data[middle + len(garbage) :])
    except ImageRefused as refused:
        assert str(refused)


def test_thumbnails_carry_no_metadata_and_small_ones_no_loss():
    image = noise((28, 28))
    image.info["exif"] = b"Exif\0\0secret"
    thumbnail = thumbnail_webp(image, 64)
    assert b"secret" not in thumbnail
    with Image.open(io.BytesIO(thumbnail)) as reread:
        assert reread.convert("RGB").tobytes() == image.tobytes()
    with Image.open(io.BytesIO(thumbnail_webp(noise((500, 100)), 64))) as small:
        assert small.size == (64, 13)
