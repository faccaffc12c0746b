import os
import time

import numpy as np
import pytest

from app import watch_folder
from app.watch_folder import WatchedFolder
from app.watch_store import WatchStore
from app.watching import Watch
from ood.monitoring.settings import Settings
from tests.app.watch_helpers import events
from tests.conftest import png


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "camera"
    path.mkdir()
    return path


@pytest.fixture
def watch(tmp_path, demo):
    store = WatchStore.open(f"sqlite:///{tmp_path / 'watch.sqlite'}")
    return Watch.create(store, demo, "camera", Settings(thresholds=40))


def put(folder, name, data, age=60.0):
    """A file that was last written so many seconds ago."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def names(watch):
    return [row["name"] for row in events(watch.record()) if row["kind"] == "arrival"]


def test_new_images_come_once_and_in_order_of_time(watch, demo, folder, test_png):
    put(folder, "b.png", test_png("Trouser"), age=30)
    put(folder, "a.png", test_png("Bag"), age=20)
    put(folder, "later/c.png", test_png("Coat"), age=40)
    watched = WatchedFolder(watch, demo, folder)
    batch = watched.step()
    assert [one.item for one in batch.decided] == [1, 2, 3] and not batch.refused
    assert names(watch) == ["later/c.png", "b.png", "a.png"]
    assert not watched.step()
    put(folder, "d.png", test_png("Coat", 1))
    assert len(watched.step().decided) == 1
    # After a restart, or beside another process, nothing comes twice.
    assert not WatchedFolder(Watch.open(watch.store, demo, watch.number), demo, folder).step()
    row = next(row for row in events(watch.record()) if row["name"] == "b.png")
    found = demo.inspect(np.stack([demo.classifier.preprocessing.pixels(_image(folder / "b.png"))]))
    np.testing.assert_allclose(row["score"], found.scores[demo.manifest.detector][0], rtol=1e-3)
    assert row["predicted"] == demo.classes.index("Trouser")


def _image(path):
    from models.images import decode_image

    return decode_image(path.read_bytes()).image


def test_a_file_that_is_being_written_waits(watch, demo, folder, test_png, monkeypatch):
    data = test_png("Trouser")
    path = put(folder, "a.png", data[:100], age=0)
    put(folder, "b.png.part", data[:100])
    put(folder, ".hidden.png", data)
    put(folder, "old.png", data)
    watched = WatchedFolder(watch, demo, folder)
    assert len(watched.step().decided) == 1 and watched.waiting == 1
    path.write_bytes(data)
    assert not watched.step() and watched.waiting == 1
    monkeypatch.setattr(watch_folder, "_QUIET_S", 0.0)
    assert len(watched.step().decided) == 1
    (folder / "b.png.part").write_bytes(data)
    (folder / "b.png.part").rename(folder / "b.png")
    assert len(watched.step().decided) == 1
    assert names(watch) == ["old.png", "a.png", "b.png"]


def test_a_file_that_changes_while_it_is_read_comes_as_it_is_then(
    watch, demo, folder, test_png, monkeypatch
):
    put(folder, "a.png", test_png("Trouser"))
    read = watch_folder._read
    monkeypatch.setattr(
        watch_folder, "_read", lambda file: (read(file), put(folder, "a.png", test_png("Bag")))[0]
    )
    watched = WatchedFolder(watch, demo, folder)
    assert not watched.step()
    monkeypatch.setattr(watch_folder, "_read", read)
    assert len(watched.step().decided) == 1 and names(watch) == ["a.png"]


def test_a_clock_that_is_ahead_stops_nothing(watch, demo, folder, test_png, monkeypatch):
    put(folder, "a.png", test_png("Trouser"), age=-3_600)
    watched = WatchedFolder(watch, demo, folder)
    assert not watched.step() and watched.waiting == 1
    clock = time.monotonic()
    monkeypatch.setattr(watch_folder.time, "monotonic", lambda: clock + 5)
    assert len(watched.step().decided) == 1


def test_what_is_refused_is_a_row_and_stops_nothing(watch, demo, folder, test_png):
    put(folder, "a.png", b"broken", age=50)
    put(folder, "b.png", test_png("Trouser"), age=40)
    put(folder, "c.zip", b"PK\x05\x06" + bytes(18), age=30)
    (folder / "gone.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.png")
    watched = WatchedFolder(watch, demo, folder)
    batch = watched.step()
    assert len(batch.decided) == 1 and [file.name for file in batch.refused] == ["a.png", "c.zip"]
    assert all(file.reason for file in batch.refused) and not watched.step()
    assert {file.name for file in watch.refused(9)} == {"a.png", "c.zip"}
    put(folder, "a.png", test_png("Trouser", 1), age=10)  # now it is whole
    assert len(watched.step().decided) == 1


def test_names_may_be_any_and_files_many(watch, demo, folder, fashion_test, monkeypatch):
    monkeypatch.setattr(watch_folder, "_AT_ONCE", 8)
    pixels = fashion_test[0]
    for n in range(19):
        put(folder, os.fsdecode(f"{n:02d} caf".encode() + b"\xe9.png"), png(pixels[n, 0]), 90 - n)
    watched = WatchedFolder(watch, demo, folder)
    assert [len(watched.step().decided) for _ in range(4)] == [8, 8, 3, 0]
    assert [name[:2] for name in names(watch)] == [f"{n:02d}" for n in range(19)]


def test_a_folder_that_is_gone_for_a_while_is_waited_for(watch, demo, folder, test_png):
    watched = WatchedFolder(watch, demo, folder)
    folder.rename(folder.with_name("elsewhere"))
    assert not watched.step()
    folder.mkdir()
    put(folder, "a.png", test_png("Trouser"))
    assert len(watched.step().decided) == 1
