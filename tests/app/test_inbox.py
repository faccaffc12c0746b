import hashlib
import io
import random
import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import event, text

from app.inbox import Inbox, identity
from app.inbox_contents import Flagged
from app.inbox_pictures import LONGEST_SIDE, MAX_PICTURE_BYTES, plain_picture
from app.inbox_tables import InboxError
from models.images import ImageRefused, thumbnail_webp
from tests.conftest import ROOT, png

HERE = "fashion 0123"
RED = thumbnail_webp(Image.new("RGB", (8, 8), "red"), 64)


def sha256(*parts) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def flagged(positions=(), *, seed=0, dimensions=4, **changed) -> Flagged:
    """Flagged images that nothing else is like."""
    chance, n = np.random.default_rng(seed), len(positions)
    fields = {
        "positions": np.array(positions, int),
        "sha256": [sha256(seed, position) for position in positions],
        "names": [f"{seed}-{position}.png" for position in positions],
        "pictures": [RED] * n,
        "p_values": chance.uniform(size=n),
        "predicted": chance.integers(8, size=n),
        "features": chance.normal(size=(n, dimensions)).astype(np.float32),
        "means": (chance.normal(size=(n, 2)), chance.normal(size=(n, 3))),
    }
    return Flagged(**fields | changed)


def add(inbox, pass_id, images, inspected=10, level=0.05, workspace=HERE):
    return inbox.add(workspace, pass_id, level=level, inspected=inspected, flagged=images)


def stored_pictures(inbox) -> int:
    with inbox.engine.connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM pictures"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "inbox.sqlite"


@pytest.fixture
def inbox(path):
    return Inbox.open(f"sqlite:///{path}")


def test_the_stream_is_as_it_was_inspected_whatever_restarts(inbox, path):
    first, second = flagged([0, 3, 9], seed=1), flagged([5], seed=2)
    assert add(inbox, "a", first)
    assert add(inbox, "b", flagged(), inspected=7)  # nothing flagged, but inspected
    assert add(inbox, "c", second, inspected=6, level=0.01)
    stream = Inbox.open(f"sqlite:///{path}").stream(HERE)
    assert stream.inspected_before.tolist() == [1, 4, 10, 23] and stream.inspected == 23
    assert stream.sha256.tolist() == [*first.sha256, *second.sha256]
    assert stream.names == (*first.names, *second.names)
    assert stream.levels.tolist() == [0.05, 0.05, 0.05, 0.01]
    assert np.array_equal(stream.p_values, [*first.p_values, *second.p_values])
    assert np.array_equal(stream.predicted, [*first.predicted, *second.predicted])
    assert np.array_equal(stream.vectors.features, [*first.features, *second.features])
    assert [stage.shape for stage in stream.vectors.means] == [(4, 2), (4, 3)]
    for stage, given in enumerate(first.means):
        assert np.array_equal(stream.vectors.means[stage][:3], given.astype(np.float32))
    assert not stream.dismissed.any() and len(set(stream.ids)) == len(stream) == 4
    assert abs(stream.created.astype(int) - time.time()).max() < 60


def test_an_empty_inbox_and_an_unknown_workspace(inbox):
    stream = inbox.stream("never seen")
    assert len(stream) == stream.inspected == 0 and stream.vectors.features.shape == (0, 0)
    assert inbox.classes("never seen") == () and inbox.pictures([]) == {}
    assert inbox.counts("never seen").passes == 0
    inbox.delete_workspace("never seen")
    inbox.delete_older("never seen", 1)


def test_a_pass_is_added_once_and_to_its_workspace(inbox):
    assert add(inbox, "a", flagged([1])) and not add(inbox, "a", flagged([1, 2]), inspected=99)
    assert add(inbox, "a", flagged([1]), workspace="other")
    assert inbox.stream(HERE).inspected == 10 and len(inbox.stream("other")) == 1
    assert stored_pictures(inbox) == 1


def test_what_does_not_fit_is_refused_and_nothing_is_kept(inbox):
    add(inbox, "a", flagged([1]))
    for wrong, images in {
        "Position 10": flagged([10]),
        "has had 4": flagged([1], dimensions=5),
        "and 2,3": flagged([1], means=()),
    }.items():
        with pytest.raises(ValueError, match=wrong):
            add(inbox, "b", images)
    with pytest.raises(ImageRefused):
        add(inbox, "b", flagged([1], pictures=[b"no picture"]))
    for wrong, changed in {
        "one of each": {"names": []},
        "matrices": {"features": np.zeros(2)},
        "finite": {"features": np.full((2, 4), np.nan)},
    }.items():
        with pytest.raises(ValueError, match=wrong):
            flagged([1, 2], **changed)
    for positions in ([2, 2], [2, 1], [-1, 0]):
        with pytest.raises(ValueError, match="ascend"):
            flagged(positions)
    assert inbox.stream(HERE).inspected == 10 and len(inbox.stream(HERE)) == 1


def test_pictures_are_stored_once_and_deleted_with_the_last_that_shows_them(inbox):
    same = {"sha256": [sha256("same")] * 2}
    add(inbox, "a", flagged([0, 1], **same))
    add(inbox, "b", flagged([0, 1], seed=1, sha256=[sha256("same"), sha256("other")]))
    add(inbox, "c", flagged([0, 1], **same), workspace="other")
    assert stored_pictures(inbox) == 2
    ids = inbox.stream(HERE).ids
    assert inbox.pictures([*ids, 999]) == dict.fromkeys(ids.tolist(), RED)
    inbox.delete(ids[1:])
    assert inbox.stream(HERE).ids.tolist() == ids[:1].tolist() and stored_pictures(inbox) == 1
    assert inbox.stream(HERE).inspected == 20  # of what was inspected nothing is forgotten
    inbox.delete_workspace(HERE)
    assert inbox.stream(HERE).inspected == 0 and stored_pictures(inbox) == 1
    inbox.delete_workspace("other")
    assert stored_pictures(inbox) == 0
    add(inbox, "a", flagged([0]))
    assert inbox.stream(HERE).ids[0] > ids.max()  # a screen may still show the deleted ones


def test_what_is_older_goes_with_its_pass(inbox):
    add(inbox, "old", flagged([0]))
    with inbox.engine.begin() as connection:
        connection.execute(text("UPDATE passes SET created = '2020-01-01T00:00:00+00:00'"))
    add(inbox, "new", flagged([4], seed=1))
    inbox.delete_older(HERE, days=30)
    stream = inbox.stream(HERE)
    assert stream.inspected_before.tolist() == [5] and stream.inspected == 10
    assert stored_pictures(inbox) == 1


def test_dismissed_images_stay_in_the_stream_marked(inbox):
    add(inbox, "a", flagged(range(1200)), inspected=1200)
    ids = inbox.stream(HERE).ids
    inbox.dismiss(ids[:1100])  # more than a statement may have
    inbox.restore(ids[:2])
    assert np.flatnonzero(inbox.stream(HERE).dismissed).tolist() == list(range(2, 1100))
    counts = inbox.counts(HERE)
    assert (counts.passes, counts.inspected, counts.flagged) == (1, 1200, 1200)
    assert counts.dismissed == 1098


def test_a_named_class_outlives_its_items_and_is_undone(inbox):
    add(inbox, "a", flagged([0, 1, 2], sha256=[sha256(1), sha256(1), sha256(2)]))
    add(inbox, "a", flagged([0, 3]), workspace="other")
    stream, elsewhere = inbox.stream(HERE), inbox.stream("other").ids
    number = inbox.save_class(HERE, " Handtasche für Łucja 👜 ", stream.ids)
    assert inbox.save_class(HERE, "handtasche FÜR Łucja 👜", stream.ids[:1]) == number
    with pytest.raises(ValueError, match="teach Handtasche für Łucja 👜 already"):
        inbox.save_class(HERE, "Bag", stream.ids)
    for name, ids in ((" ", stream.ids), ("a" * 65, stream.ids), ("Bag", [999]), ("B", elsewhere)):
        with pytest.raises(ValueError):
            inbox.save_class(HERE, name, ids)
    inbox.delete(stream.ids)
    (bag,) = inbox.classes(HERE)
    assert bag.name == "Handtasche für Łucja 👜" and bag.id == number and not bag.undone
    assert set(bag.sha256) == {sha256(1), sha256(2)} and bag.created
    row = stream.sha256.tolist().index(sha256(2))
    member = bag.sha256.index(sha256(2))
    assert np.array_equal(bag.vectors.features[member], stream.vectors.features[row])
    assert np.array_equal(bag.vectors.means[1][member], stream.vectors.means[1][row])
    assert inbox.classes("other") == () and stored_pictures(inbox) == 4
    inbox.undo_class(number)
    (undone,) = inbox.classes(HERE)
    assert undone.undone and undone.sha256 == bag.sha256 and stored_pictures(inbox) == 2
    inbox.undo_class(number)  # a second time changes nothing
    assert inbox.classes(HERE)[0].undone == undone.undone
    assert inbox.save_class("other", bag.name, elsewhere) > number
    inbox.delete_workspace(HERE)
    assert inbox.classes(HERE) == ()


def test_nothing_but_pixels_is_kept_of_a_picture(inbox):
    photo, buffer = Image.new("RGB", (900, 400), "red"), io.BytesIO()
    exif = Image.Exif()
    exif[0x010F] = "secret camera"
    photo.save(buffer, "JPEG", exif=exif, comment=b"secret place")
    webp = io.BytesIO()
    photo.resize((90, 40)).save(webp, "WEBP", exif=exif)
    hidden = RED + b"secret tail"
    add(inbox, "a", flagged([0, 1, 2], pictures=[buffer.getvalue(), webp.getvalue(), hidden]))
    pictures = list(inbox.pictures(inbox.stream(HERE).ids).values())
    for picture, size in zip(pictures, ((320, 142), (90, 40), (8, 8)), strict=True):
        with Image.open(io.BytesIO(picture)) as image:
            assert image.format == "WEBP" and image.size == size and not image.getexif()
            assert "exif" not in image.info and b"secret" not in picture


def test_a_picture_is_small_whatever_is_given():
    noise = np.random.default_rng(0).integers(256, size=(700, 700, 3))
    small = plain_picture(png(noise))
    assert len(small) <= MAX_PICTURE_BYTES and max(Image.open(io.BytesIO(small)).size) == 320
    assert plain_picture(small) is small
    large = io.BytesIO()
    Image.new("RGB", (LONGEST_SIDE + 1, 8)).save(large, "WEBP")
    assert Image.open(io.BytesIO(plain_picture(large.getvalue()))).size[0] == LONGEST_SIDE
    with pytest.raises(ImageRefused):
        plain_picture(RED[:-20])


def test_names_in_any_script_or_in_none(inbox):
    names = [
        "Überzieher 外套 👢.png",
        "half \udce9.png",
        "zero\0.png",
        "x" * 5000,
        "'; DROP TABLE items",
    ]
    add(inbox, "a", flagged(range(5), names=names))
    kept = inbox.stream(HERE).names
    assert kept[0] == names[0] and kept[3:] == tuple(names[3:])
    assert kept[1] == "half \\udce9.png" and kept[2] == "zero\ufffd.png"


def test_a_workspace_is_known_by_name_and_digests_not_by_place(demo):
    moved = SimpleNamespace(manifest=demo.manifest, key=f"/elsewhere now {demo.key.split()[-1]}")
    assert identity(demo) == identity(moved) and identity(demo).startswith("fashion ")
    again = SimpleNamespace(manifest=demo.manifest, key="/elsewhere 00ff")
    assert identity(again) != identity(demo)


def test_an_installation_has_one_inbox_or_another_by_url(monkeypatch, tmp_path):
    monkeypatch.setenv("KINDRED_HOME", str(tmp_path / "what? 100%"))
    monkeypatch.delenv("KINDRED_INBOX", raising=False)
    add(Inbox.open(), "a", flagged([0]))
    file = tmp_path / "what? 100%" / "inbox.sqlite"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.setenv("KINDRED_INBOX", f"sqlite:///{tmp_path / 'team.sqlite'}")
    assert len(Inbox.open().stream(HERE)) == 0 and (tmp_path / "team.sqlite").exists()


def test_threads_lose_nothing(path):
    inbox_of = Inbox.open(f"sqlite:///{path}")

    def work(who):
        for number in range(20):
            # Every thread has the same pictures: they race for who stores them.
            add(inbox_of, f"{who} {number}", flagged(range(5), seed=number))
            inbox_of.stream(HERE)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    stream = inbox_of.stream(HERE)
    assert len(stream) == 600 and stream.inspected == 1200 and stored_pictures(inbox_of) == 100
    assert np.array_equal(stream.inspected_before.reshape(120, 5) % 10, [[1, 2, 3, 4, 5]] * 120)


# A process that adds passes as fast as it can, and tells of each that it has been added.
_ADDING = """
import sys, hashlib, numpy as np
from app.inbox import Inbox
from app.inbox_contents import Flagged
url, who, passes, picture = sys.argv[1:]
inbox = Inbox.open(url)
for number in range(int(passes)):
    ids = [f"{who} {number} {i}" for i in range(50)]
    inbox.add("fashion 0123", f"{who} {number}", level=0.05, inspected=80, flagged=Flagged(
        np.arange(50), [hashlib.sha256(i.encode()).hexdigest() for i in ids], ids,
        [bytes.fromhex(picture)] * 50, np.zeros(50), np.zeros(50, int), np.ones((50, 64)),
    ))
    print(f"{who} {number}", flush=True)
"""


def _adding(url, who, passes) -> subprocess.Popen:
    arguments = [url, str(who), str(passes), RED.hex()]
    return subprocess.Popen(
        [sys.executable, "-c", _ADDING, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _passes(inbox) -> dict[str, int]:
    """Items of each pass."""
    query = (
        "SELECT given_id, count(pictures.sha256) FROM passes "
        "LEFT JOIN items ON items.pass_id = passes.id "
        "LEFT JOIN pictures ON pictures.sha256 = items.sha256 GROUP BY passes.id"
    )
    with inbox.engine.connect() as connection:
        assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
        return dict(connection.execute(text(query)).all())


def test_processes_that_start_at_once_lose_nothing(path):
    url = f"sqlite:///{path}"  # which nobody has made yet
    workers = [_adding(url, who, 15) for who in range(4)]
    assert [len(worker.communicate()[0].splitlines()) for worker in workers] == [15] * 4
    inbox = Inbox.open(url)
    assert _passes(inbox) == {f"{who} {n}": 50 for who in range(4) for n in range(15)}
    assert inbox.stream(HERE).inspected == 60 * 80


def test_a_killed_process_leaves_every_pass_whole_or_not_at_all(path):
    chance, told = random.Random(0), set()
    for who in range(6):
        worker = _adding(f"sqlite:///{path}", who, 10_000)
        told.add(worker.stdout.readline().strip())
        time.sleep(chance.uniform(0, 0.2))
        worker.kill()
        told |= {line.strip() for line in worker.stdout if line.endswith("\n")}
        worker.wait()
        worker.stdout.close()
    inbox = Inbox.open(f"sqlite:///{path}")
    passes = _passes(inbox)
    assert set(passes.values()) == {50} and told <= set(passes)
    stream = inbox.stream(HERE)
    assert len(stream) == 50 * len(passes) and stream.inspected == 80 * len(passes)
    assert np.array_equal(stream.inspected_before % 80, np.tile(np.arange(50) + 1, len(passes)))
    assert add(inbox, "later", flagged([0], dimensions=64, means=()))


def test_a_full_disk_says_so_and_keeps_what_was_there(inbox):
    add(inbox, "a", flagged([0, 1]))

    def limit(connection):
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 5}")

    event.listen(inbox.engine, "begin", limit)
    with pytest.raises(InboxError, match=r"full.* Make room"):
        add(inbox, "b", flagged(range(1000), dimensions=4), inspected=1000)
    event.remove(inbox.engine, "begin", limit)
    assert inbox.stream(HERE).inspected == 10 and len(inbox.stream(HERE)) == 2
    with inbox.engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count = 1000000"))
    assert add(inbox, "b", flagged(range(1000)), inspected=1000)  # once there is room


def test_a_read_only_inbox_can_be_read(inbox, path):
    add(inbox, "a", flagged([0]))
    frozen = Inbox.open(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert len(frozen.stream(HERE)) == 1
    with pytest.raises(InboxError, match=r"readonly.* writable"):
        add(frozen, "b", flagged([1]))


def test_places_where_no_inbox_can_be(tmp_path):
    (tmp_path / "file").touch()
    for url, why in {
        f"sqlite:///{tmp_path}": r"unable to open.* writable",
        f"sqlite:///{tmp_path}/file/inbox.sqlite": "Check",
        "no url": "not the URL",
        "cobol://user:secret@host/inbox": "not the URL",
    }.items():
        with pytest.raises(InboxError, match=why) as told:
            Inbox.open(url)
        assert "secret" not in str(told.value)


def test_a_file_that_is_no_inbox_or_damaged(inbox, path):
    other = path.with_name("notes.txt")
    other.write_text("Not a database, " * 100)
    with pytest.raises(InboxError, match="no inbox"):
        Inbox.open(f"sqlite:///{other}")
    assert other.read_text().startswith("Not a database")
    add(inbox, "a", flagged(range(500)), inspected=500)
    inbox.engine.dispose()  # the last connection to close empties the log into the file
    data = bytearray(path.read_bytes())
    data[8192:-4096] = bytes(len(data) - 8192 - 4096)
    path.write_bytes(data)
    with pytest.raises(InboxError, match="damaged"):
        Inbox.open(f"sqlite:///{path}").stream(HERE)


def test_rows_that_make_no_sense_are_damage(inbox):
    add(inbox, "a", flagged([0, 1]))
    with inbox.engine.begin() as connection:
        connection.execute(text("UPDATE items SET features = x'00' WHERE position = 1"))
    with pytest.raises(InboxError, match="damaged"):
        inbox.stream(HERE)


def test_a_later_version_is_left_alone(inbox, path):
    with inbox.engine.begin() as connection:
        connection.execute(text("UPDATE schema_version SET version = 2"))
    with pytest.raises(InboxError, match=r"version 2.* reads 1\. Update Kindred"):
        Inbox.open(f"sqlite:///{path}")


def test_deleted_pictures_leave_no_trace_in_the_file(inbox, path):
    noise = np.random.default_rng(0).integers(256, size=(60, 60, 3))
    picture = plain_picture(png(noise))
    add(inbox, "a", flagged([0], pictures=[picture]))
    inbox.delete(inbox.stream(HERE).ids)
    inbox.engine.dispose()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM pictures").fetchone() == (0,)
    assert picture[1000:1100] not in path.read_bytes()
