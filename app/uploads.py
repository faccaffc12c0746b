"""What people hand in: files, zips, folders; each becomes an image or a reason."""

import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.images import (
    MAX_IMAGE_BYTES,
    DecodedImage,
    ImageRefused,
    decode_image,
    thumbnail_webp,
)
from models.preprocessing import Preprocessing

MAX_BATCH_IMAGES = 1_000
MAX_BATCH_BYTES = 500 * 2**20
PICTURE_SIDE = 320
THUMBNAIL_SIDE = 64
_MAX_ZIP_CONTENTS = 10 * 2**20


@dataclass(frozen=True)
class UploadedImage:
    """An image ready to be inspected, without its file's bytes.

    Attributes:
        name: the client's file name; for showing only.
        sha256: identity, of the decoded pixels.
        width: in pixels, upright.
        height: in pixels, upright.
        note: what was done to it on the way ("" when nothing).
        pixels: (channels, S, S) uint8, the classifier's input.
        picture: WebP, at most 320 pixels.
        thumbnail: WebP, at most 64 pixels.
    """

    name: str
    sha256: str
    width: int
    height: int
    note: str
    pixels: np.ndarray
    picture: bytes
    thumbnail: bytes


@dataclass(frozen=True)
class RefusedImage:
    """A file that cannot be inspected, and why."""

    name: str
    reason: str


def prepare_upload(
    name: str, data: bytes, preprocessing: Preprocessing
) -> UploadedImage | RefusedImage:
    """Decode one file into what the classifier and the screen need."""
    try:
        decoded = decode_image(data)
    except ImageRefused as refused:
        return RefusedImage(name, str(refused))
    return uploaded_image(name, decoded, preprocessing)


def uploaded_image(name: str, decoded: DecodedImage, preprocessing: Preprocessing) -> UploadedImage:
    """A decoded image, reduced to what the classifier and the screen need."""
    return UploadedImage(
        name=name,
        sha256=decoded.sha256,
        width=decoded.image.width,
        height=decoded.image.height,
        note=decoded.note,
        pixels=preprocessing.pixels(decoded.image),
        picture=thumbnail_webp(decoded.image, PICTURE_SIDE),
        thumbnail=thumbnail_webp(decoded.image, THUMBNAIL_SIDE),
    )


def count_files(files: Iterable[tuple[str, bytes]]) -> int:
    """How many files `expand` will yield, about."""
    return sum(_count_entries(data) if _is_zip(data) else 1 for _, data in files)


def expand(files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes] | RefusedImage]:
    """Files as they were handed in, zips opened, the batch's limits kept.

    What is over the limits is refused: row by row for files, in one row for the rest of a zip.
    """
    images = total = 0
    for name, data in files:
        entries = _zip_entries(name, data) if _is_zip(data) else iter([(name, data)])
        for entry in entries:
            images += 1
            total += 0 if isinstance(entry, RefusedImage) else len(entry[1])
            if images <= MAX_BATCH_IMAGES and total <= MAX_BATCH_BYTES:
                yield entry
                continue
            limit = f"{MAX_BATCH_IMAGES:,} images and {MAX_BATCH_BYTES >> 20} MB"
            label = entry.name if isinstance(entry, RefusedImage) else entry[0]
            yield RefusedImage(label, f"Over the limit of {limit} a batch.")
            if _is_zip(data):
                yield RefusedImage(name, "The rest of this zip is over the limit too.")
                break


def read_paths(paths: Iterable[Path]) -> Iterator[tuple[str, bytes] | RefusedImage]:
    """Files, the files of folders, and the images in zips; hidden files are passed over."""
    for path in paths:
        name = printable(path)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if not p.name.startswith("."))
            yield from read_paths(p for p in inside if p.is_file())
            continue
        try:
            if path.suffix.lower() != ".zip" and path.stat().st_size > MAX_IMAGE_BYTES:
                limit = f"the limit is {MAX_IMAGE_BYTES >> 20} MB"
                size = path.stat().st_size / 2**20
                yield RefusedImage(name, f"The file has {size:.0f} MB; {limit}.")
                continue
            data = path.read_bytes()
        except OSError as error:
            yield RefusedImage(name, f"The file cannot be read: {error.strerror}.")
            continue
        yield from _zip_entries(name, data) if _is_zip(data) else [(name, data)]


def printable(path: Path) -> str:
    """A path as text, even when its bytes are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_zip(data: bytes) -> bool:
    return data[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def _count_entries(data: bytes) -> int:
    try:
        return min(len(_open_zip(data).infolist()), MAX_BATCH_IMAGES)
    except Exception:  # said when its entries are read
        return 1


def _open_zip(data: bytes) -> zipfile.ZipFile:
    """Open a zip whose table of contents is of a sane size; reading it costs memory and time.

    Raises:
        BadZipFile: when it is not, or has the 64-bit form that only larger ones need.
    """
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - 70_000))
    contents = int.from_bytes(data[end + 12 : end + 16], "little") if end >= 0 else 0
    if contents > _MAX_ZIP_CONTENTS or data[max(0, end - 20) : end].startswith(b"PK\x06\x07"):
        raise zipfile.BadZipFile("its table of contents is too large")
    return zipfile.ZipFile(io.BytesIO(data))


def _zip_entries(name: str, data: bytes) -> Iterator[tuple[str, bytes] | RefusedImage]:
    try:
        archive = _open_zip(data)
    except Exception as error:  # damaged, or of a version to come
        yield RefusedImage(name, f"The zip cannot be opened: {error}.")
        return
    entries = [e for e in archive.infolist() if not e.is_dir() and not _is_hidden(e.filename)]
    if not entries:
        yield RefusedImage(name, "The zip holds no files.")
    for entry in entries:
        label = f"{name}/{entry.filename}"
        if entry.file_size > MAX_IMAGE_BYTES:
            size = entry.file_size / 2**20
            reason = f"The file has {size:.0f} MB; the limit is {MAX_IMAGE_BYTES >> 20} MB."
            yield RefusedImage(label, reason)
            continue
        try:
            with archive.open(entry) as file:
                # The header may lie about the size: read one byte more than allowed, no further.
                yield label, file.read(MAX_IMAGE_BYTES + 1)
        except Exception as error:  # encrypted, damaged, unsupported: a type per compression
            yield RefusedImage(label, f"It cannot be unpacked: {error}.")


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1].startswith(".")
