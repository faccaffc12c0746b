"""Bytes from anyone into pixels, or into the reason why not.

Limits are checked on the header, before a single pixel is allocated. Every
image that passes is RGB, upright, and known by the sha256 of its pixels.
"""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_IMAGE_BYTES = 20 * 2**20
MAX_IMAGE_PIXELS = 40_000_000

# Pillow's own limit warns at 89 and refuses at 179 megapixels; ours is lower and always refuses.
Image.MAX_IMAGE_PIXELS = None

_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})


class ImageRefused(ValueError):
    """An image that cannot be inspected; the message is the reason, for a person."""


@dataclass(frozen=True)
class DecodedImage:
    """An upright RGB image.

    Attributes:
        image: the pixels, mode RGB.
        sha256: hex digest of size and pixels; the image's identity everywhere.
        note: what was done to it that its owner may not expect ("" when nothing).
    """

    image: Image.Image
    sha256: str
    note: str = ""


def decode_image(data: bytes) -> DecodedImage:
    """Decode one image file.

    Args:
        data: the whole file; JPEG, PNG, WebP, BMP, TIFF or GIF, whatever its name says.

    Raises:
        ImageRefused: when the file is empty, too large, not an image of these
            formats, damaged, or holds values without a fixed range.
    """
    if not data:
        raise ImageRefused("The file is empty.")
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageRefused(
            f"The file has {len(data) / 2**20:.1f} MB; the limit is {MAX_IMAGE_BYTES >> 20} MB."
        )
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageRefused(f"Not an image Kindred can read ({', '.join(FORMATS)}).") from None
    except Exception as error:  # Pillow's readers raise a dozen types on damaged files
        raise ImageRefused(f"The image is damaged: {error}") from None
    with opened:
        width, height = opened.size
        if width * height > MAX_IMAGE_PIXELS:
            raise ImageRefused(
                f"The image has {width:,} x {height:,} = {width * height / 1e6:.0f} megapixels; "
                f"the limit is {MAX_IMAGE_PIXELS // 1_000_000}."
            )
        try:
            opened.load()
            # Not n_frames: to count them a GIF is read to its end.
            animated = getattr(opened, "is_animated", False)
            rgb, note = _to_rgb(_upright(opened))
        except ImageRefused:
            raise
        except Exception as error:
            raise ImageRefused(f"The image is damaged: {error}") from None
    if animated:
        note = "first of several frames" + (f"; {note}" if note else "")
    return DecodedImage(image=rgb, sha256=pixel_digest(rgb), note=note)


def pixel_digest(image: Image.Image) -> str:
    """Hex sha256 of an RGB image's width, height and pixels."""
    digest = hashlib.sha256(np.array(image.size, dtype="<u4").tobytes())
    digest.update(image.tobytes())
    return digest.hexdigest()


def thumbnail_webp(image: Image.Image, longest_side: int) -> bytes:
    """The image as a fresh WebP file without metadata, at most `longest_side` pixels long.

    Images that are already small are kept lossless.
    """
    small = image.copy()
    small.thumbnail((longest_side, longest_side))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", lossless=max(image.size) <= 64, quality=80)
    return buffer.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF is no EXIF
        return image


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    if image.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageRefused("The image has 32-bit values; Kindred reads 8 and 16 bits.")
        image = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
        return image.convert("RGB"), "16-bit values scaled to 8"
    if image.mode == "F":
        raise ImageRefused("The image has floating-point values, which have no fixed range.")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB"), "transparency shown on white"
    return image.convert("RGB"), "CMYK converted to RGB" if image.mode == "CMYK" else ""
