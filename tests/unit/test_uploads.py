import io
import struct
import time
import zipfile

import numpy as np
import pytest

from app import uploads
from app.uploads import RefusedImage, count_files, expand, prepare_upload, read_paths
from models.preprocessing import Preprocessing
from tests.conftest import png

GRAY = Preprocessing(28, (0.3,), (0.3,))
PICTURE = png(np.arange(784).reshape(28, 28) % 251)


def zipped(entries: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def reasons(files) -> list[str]:
    return [entry.reason for entry in expand(files) if isinstance(entry, RefusedImage)]


def test_a_zip_gives_its_images_and_skips_what_systems_add():
    data = zipped(
        {"a.png": PICTURE, "__MACOSX/._a.png": b"x", "b/.DS_Store": b"x", "b/c.png": b"?"}
    )
    assert list(expand([("z.zip", data)])) == [("z.zip/a.png", PICTURE), ("z.zip/b/c.png", b"?")]
    assert count_files([("z.zip", data), ("d.png", PICTURE)]) == 5


def test_a_bomb_is_refused_by_its_header_without_unpacking():
    data = zipped({"bomb.png": bytes(200 * 2**20)})
    assert len(data) < 2**20
    assert reasons([("z.zip", data)]) == ["The file has 200 MB; the limit is 20 MB."]


def test_a_bomb_whose_header_lies_is_cut_off():
    data = bytearray(zipped({"bomb.png": bytes(60 * 2**20)}))
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 1000)  # claims 1,000 bytes
    (entry,) = expand([("z.zip", bytes(data))])
    assert isinstance(entry, RefusedImage) or len(entry[1]) <= uploads.MAX_IMAGE_BYTES + 1


def test_many_entries_stop_at_the_batch_limit_with_one_row_for_the_rest():
    data = zipped({f"{n}.png": b"x" for n in range(1_005)}, zipfile.ZIP_STORED)
    entries = list(expand([("z.zip", data)]))
    assert sum(not isinstance(entry, RefusedImage) for entry in entries) == 1_000
    assert [entry.name for entry in entries[1_000:]] == ["z.zip/1000.png", "z.zip"]


def test_a_thousand_files_are_taken_and_the_next_refused_by_name():
    entries = list(expand([(f"{n}.png", PICTURE) for n in range(1_002)]))
    assert sum(not isinstance(entry, RefusedImage) for entry in entries) == 1_000
    assert [entry.name for entry in entries[1_000:]] == ["1000.png", "1001.png"]
    assert "1,000 images and 500 MB" in entries[1_000].reason


def test_total_bytes_are_limited(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BATCH_BYTES", 2 * len(PICTURE))
    assert len(reasons([(f"{n}.png", PICTURE) for n in range(3)])) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (zipped({}), "holds no files"),
        (zipped({"a.png": PICTURE})[:-30], "zip cannot be opened"),
        (
            zipped({"a.png": PICTURE})[:40] + b"PK\x05\x06" + bytes(18),
            "holds no files|cannot be opened",
        ),
    ],
)
def test_damaged_and_empty_zips_are_one_row(data, reason):
    (found,) = reasons([("z.zip", data)])
    assert pytest.importorskip("re").search(reason, found)


def test_a_zip_of_too_many_entries_is_refused_before_they_are_listed():
    many = zipped({f"{n:0200d}": b"" for n in range(50_000)}, zipfile.ZIP_STORED)
    start = time.perf_counter()
    (found,) = reasons([("z.zip", many)])
    assert "table of contents is too large" in found
    assert time.perf_counter() - start < 0.5
    with_more = zipped({f"{n}": b"" for n in range(66_000)}, zipfile.ZIP_STORED)  # needs zip64
    assert "table of contents is too large" in reasons([("z.zip", with_more)])[0]


def test_a_zip_of_a_version_to_come_is_one_row():
    data = bytearray(zipped({"a.png": PICTURE}))
    data[data.rindex(b"PK\x01\x02") + 6] = 99
    assert "cannot be opened" in reasons([("z.zip", bytes(data))])[0]
    assert count_files([("z.zip", bytes(data))]) == 1


def test_refused_entries_count_towards_the_batch(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BATCH_IMAGES", 3)
    monkeypatch.setattr(uploads, "MAX_IMAGE_BYTES", 10)
    data = zipped({f"{n}.png": bytes(11) for n in range(9)})
    assert len(reasons([("z.zip", data)])) == 5  # three, the fourth, and one row for the rest


def test_an_encrypted_entry_is_refused():
    data = bytearray(zipped({"a.png": PICTURE}))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    (found,) = reasons([("z.zip", bytes(data))])
    assert "cannot be unpacked" in found


def test_a_zip_in_a_zip_is_no_image():
    (entry,) = expand([("z.zip", zipped({"inner.zip": zipped({"a.png": PICTURE})}))])
    assert isinstance(prepare_upload(*entry, GRAY), RefusedImage)


def test_an_upload_keeps_input_picture_and_identity_but_not_the_file():
    image = prepare_upload("../../evil\n.png", PICTURE, GRAY)
    assert image.name == "../../evil\n.png"  # a name is data: shown, never opened
    assert image.pixels.shape == (1, 28, 28) and image.pixels.dtype == np.uint8
    assert len(image.sha256) == 64
    assert image.picture[:4] == image.thumbnail[:4] == b"RIFF"


def test_paths_may_be_files_folders_and_zips(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(PICTURE)
    (tmp_path / "in" / ".hidden").write_bytes(b"x")
    (tmp_path / "z.zip").write_bytes(zipped({"b.png": PICTURE}))
    names = [name for name, _ in read_paths([tmp_path / "in", tmp_path / "z.zip"])]
    assert names == [str(tmp_path / "in" / "a.png"), f"{tmp_path / 'z.zip'}/b.png"]
