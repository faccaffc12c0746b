"""The inbox's pictures: one for each sha256, shared by all that show the same pixels."""

import io
from collections.abc import Iterator, Mapping

from PIL import Image
from sqlalchemy import Connection, delete, exists, insert, select

from app.database import some_at_once
from app.inbox_tables import ITEMS, MEMBERS, NEW_CLASSES, PICTURES
from models.images import decode_image, thumbnail_webp

LONGEST_SIDE = 320
MAX_PICTURE_BYTES = 2**17
# Of a WebP file: lossy, lossless, its canvas, transparency. Others hold EXIF, XMP and the like.
_PLAIN_CHUNKS = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH"})


def add_pictures(connection: Connection, pictures: Mapping[str, bytes]) -> None:
    """Store plain pictures by sha256, but those that are there."""
    there = {
        sha256
        for some in some_at_once(list(pictures))
        for sha256 in connection.scalars(
            select(PICTURES.c.sha256).where(PICTURES.c.sha256.in_(some))
        )
    }
    rows = [{"sha256": s, "webp": data} for s, data in pictures.items() if s not in there]
    if rows:
        connection.execute(insert(PICTURES), rows)


def delete_unused_pictures(connection: Connection) -> None:
    """Delete those of no item, and of no class that is in force."""
    shown = exists().where(ITEMS.c.sha256 == PICTURES.c.sha256)
    teaches = exists().where(
        MEMBERS.c.sha256 == PICTURES.c.sha256,
        MEMBERS.c.class_id == NEW_CLASSES.c.id,
        NEW_CLASSES.c.undone == "",
    )
    # In two steps: the digests are in an index, which is read without the pictures.
    unused = connection.scalars(select(PICTURES.c.sha256).where(~shown, ~teaches)).all()
    for some in some_at_once(unused):
        connection.execute(delete(PICTURES).where(PICTURES.c.sha256.in_(some)))


def plain_picture(data: bytes) -> bytes:
    """A small WebP file of an image, without EXIF or anything else beside the pixels.

    One that is so already, at most 320 pixels and 128 KB, stays as it is.

    Raises:
        ImageRefused: see `decode_image`.
    """
    if len(data) <= MAX_PICTURE_BYTES and _is_plain_webp(data):
        return data
    return thumbnail_webp(decode_image(data).image, LONGEST_SIDE)


def _is_plain_webp(data: bytes) -> bool:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return False
    if len(data) != 8 + int.from_bytes(data[4:8], "little"):
        return False  # something follows the image
    if not _PLAIN_CHUNKS.issuperset(_chunks(data)):
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
            return max(image.size) <= LONGEST_SIDE
    except Exception:  # damaged: said when it is decoded
        return False


def _chunks(data: bytes) -> Iterator[bytes]:
    """The names of a WebP file's chunks."""
    start = 12
    while start < len(data):
        yield data[start : start + 4]
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        start += 8 + size + size % 2
