"""From a flagged batch to a named class and back, without a browser."""

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import streamlit as st
from PIL import Image

from app.candidate_checks import check_groups
from app.discovery import (
    Grouping,
    find_candidates,
    in_force,
    keep_flagged,
    labelled_set,
    learn,
    name_class,
)
from app.inbox import Inbox, identity
from app.inbox_contents import Vectors
from app.inspecting import inspect_files
from app.new_class_replay import replay
from app.uploads import expand
from tests.app.screens import texts, upload


@pytest.fixture(autouse=True)
def own_inbox(monkeypatch, tmp_path):
    monkeypatch.setenv("KINDRED_HOME", str(tmp_path))
    st.cache_resource.clear()
    st.cache_data.clear()


@pytest.fixture
def inbox(own_inbox):
    return Inbox.open()


def files(test_png, **counts):
    return [
        (f"{name} {n}.png", test_png(name.replace("_", " "), n + start))
        for name, (start, count) in counts.items()
        for n in range(count)
    ]


def keep(inbox, demo, given, number, *, counted=True):
    """A pass, as the Inspect page collects it, or keeps it by its button."""
    found = inspect_files(demo, list(expand(given)), gradients=False)
    name = f"pass {number}"
    return keep_flagged(inbox, demo, name, found.images, found.inspection, 0.05, counted=counted)


def candidates(demo, stream, rows, *, named=()):
    learned = learn(demo, named) if named else None
    return find_candidates(demo, stream, rows, replay(demo, stream).monitor, learned)


def outcome(replayed):
    """All that a replay says."""
    monitor = replayed.monitor
    facts = [(p.since, p.items, p.hits, p.rate, p.confirmed_at) for p in monitor.proposals]
    return monitor.ids, monitor.inspected, facts


def nothing(stream):
    """The fields of a stream in which nothing was flagged."""
    rows = slice(0)
    columns = ("ids", "sha256", "p_values", "inspected_before", "counted")
    vectors = Vectors(stream.vectors.features[rows], ())
    return {name: getattr(stream, name)[rows] for name in columns} | {"vectors": vectors}


def button(page, label):
    return next(found for found in page.button if found.label.startswith(label))


def learn_largest(page, name):
    """Name the largest group and press its button."""
    learning = [found for found in page.button if found.label.startswith("Learn these")]
    largest = max(learning, key=lambda found: int(found.label.split()[-1]))
    page.text_input(key=largest.key.replace("-learn", "-name")).set_value(name).run()
    page.button(key=largest.key).click().run()


def test_an_empty_inbox_says_what_to_do(page):
    page.run()
    page.switch_page("web/novelty_page.py").run()
    assert not page.exception and "The inbox is empty" in texts(page)


def test_flagged_images_are_kept_once(page, test_png, inbox, demo):
    batch = files(test_png, Bag=(0, 14), Coat=(0, 10))
    upload(page, batch)
    button(page, "Keep the flagged ones").click().run()
    assert not page.exception
    stream = inbox.stream(identity(demo))
    assert 10 <= len(stream) <= 17
    assert stream.inspected == 0 and not stream.counted.any()  # kept for what they showed
    said = "\n".join(str(element.value) for element in page.success)
    assert f"{len(stream)} flagged images of 24 are in the inbox" in said
    button(page, "Keep the flagged ones").click().run()
    assert len(inbox.stream(identity(demo))) == len(stream)
    assert "in the inbox already" in texts(page)


def test_a_group_is_named_learned_recognised_and_taken_back(page, test_png, inbox, demo):
    keep(inbox, demo, files(test_png, Bag=(0, 60), Coat=(0, 40)), 1)
    page.run()
    page.switch_page("web/novelty_page.py").run()
    assert not page.exception
    said = texts(page)
    assert "Group 1." in said and "look alike" in said and "Not proven" in said
    learn_largest(page, "Bag")
    assert not page.exception
    (named,) = in_force(inbox.classes(identity(demo)))
    assert named.name == "Bag" and len(named.sha256) >= 8
    assert "**Bag**, from" in texts(page) and "points)" in texts(page)
    page.switch_page("web/inspect_page.py").run()
    held_back = files(test_png, Bag=(300, 60))
    seen = inspect_files(demo, list(expand(held_back)), gradients=False).inspection
    places = learn(demo, [named]).recognise(np.asarray(seen.activations.features), 0.05)
    assert (places == 0).mean() > 0.3  # ten images taught it
    upload(page, [held_back[int(np.flatnonzero(places == 0)[0])]])
    assert "Named here: Bag" in texts(page)
    page.switch_page("web/novelty_page.py").run()
    button(page, "Undo").click().run()
    assert not in_force(inbox.classes(identity(demo)))
    page.switch_page("web/inspect_page.py").run()
    assert "Named here" not in texts(page)


def test_what_is_nothing_new_is_taken_out_of_the_groups(page, test_png, inbox, demo):
    keep(inbox, demo, files(test_png, Bag=(0, 40), Coat=(0, 20)), 1)
    page.run()
    page.switch_page("web/novelty_page.py").run()
    before = sum("Group" in str(m.value) for m in page.markdown)
    button(page, "Nothing new").click().run()
    assert not page.exception
    assert sum("Group" in str(m.value) for m in page.markdown) < before
    assert inbox.stream(identity(demo)).dismissed.sum() >= 10


def test_later_bags_prove_that_they_are_a_class(test_png, inbox, demo):
    """What formed the group is no evidence; what falls into it later is."""
    known = ("Coat", "Dress", "Sneaker", "Trouser", "Shirt")
    mixed = files(test_png, Bag=(0, 60), **dict.fromkeys(known, (0, 48)))
    order = np.random.default_rng(0).permutation(len(mixed))
    proven = []
    for number, part in enumerate(np.array_split(order, 5)):
        keep(inbox, demo, [mixed[row] for row in part], number)
        stream = inbox.stream(identity(demo))
        found = candidates(demo, stream, np.arange(len(stream)))
        proven.append(found[0].proven)
    assert not proven[0] and proven[-1] and proven == sorted(proven)
    best = found[0]
    names = np.array(stream.names)[best.rows[: best.core]]
    assert best.core >= 5 and np.mean([name.startswith("Bag") for name in names]) >= 0.9
    left = np.setdiff1d(np.arange(len(stream)), best.rows)  # once these are named
    again = np.concatenate([left, best.rows[: best.core // 3]])
    assert not any(candidate.proven for candidate in candidates(demo, stream, again))


def test_known_images_prove_nothing(test_png, inbox, demo):
    known = ("Coat", "Dress", "Sneaker", "Trouser", "Shirt", "Pullover")
    keep(inbox, demo, files(test_png, **dict.fromkeys(known, (100, 60))), 1)
    stream = inbox.stream(identity(demo))
    found = candidates(demo, stream, np.arange(len(stream)))
    assert not any(candidate.proven for candidate in found)


def test_a_page_without_its_inbox_says_why(page, monkeypatch, tmp_path):
    (tmp_path / "broken.sqlite").write_bytes(b"no database " * 100)
    monkeypatch.setenv("KINDRED_INBOX", f"sqlite:///{tmp_path / 'broken.sqlite'}")
    page.run()
    assert not page.exception  # the Inspect page works without
    page.switch_page("web/novelty_page.py").run()
    assert not page.exception and "damaged" in texts(page)


def test_learning_uses_the_classes_in_force_only(test_png, inbox, demo):
    keep(inbox, demo, files(test_png, Bag=(0, 20)), 1)
    ids = inbox.stream(identity(demo)).ids
    number = inbox.save_class(identity(demo), "Bag", ids)
    (named,) = inbox.classes(identity(demo))
    assert learn(demo, [named]).names == ("Bag",)
    with zipfile.ZipFile(io.BytesIO(labelled_set(inbox, named))) as archive:
        assert sorted(archive.namelist()) == sorted(f"Bag/{s}.webp" for s in named.sha256)
        assert Image.open(io.BytesIO(archive.read(archive.namelist()[0]))).size == (28, 28)
    inbox.undo_class(number)
    assert learn(demo, inbox.classes(identity(demo))).names == ()


def test_copies_of_one_picture_are_no_class(page, test_png, inbox, demo):
    """They would be one member, and nothing can be learned from one."""
    keep(inbox, demo, [(f"copy {n}.png", test_png("Bag", 3)) for n in range(12)], 1)
    page.run()
    page.switch_page("web/novelty_page.py").run()
    assert not page.exception
    page.text_input(key=next(t.key for t in page.text_input if t.label == "What is it?")).set_value(
        "Bag"
    ).run()
    assert button(page, "Learn these").disabled


def test_when_all_is_decided_the_page_says_so(page, test_png, inbox, demo):
    keep(inbox, demo, files(test_png, Bag=(0, 12)), 1)
    inbox.dismiss(inbox.stream(identity(demo)).ids)
    page.run()
    page.switch_page("web/novelty_page.py").run()
    said = "\n".join(str(element.value) for element in page.success)
    assert not page.exception and "All of them are named or dismissed" in said


def test_a_new_class_is_not_named_like_a_known_one(test_png, inbox, demo):
    keep(inbox, demo, files(test_png, Bag=(0, 12)), 1)
    ids = inbox.stream(identity(demo)).ids
    with pytest.raises(ValueError, match="Coat is a class that the model knows"):
        name_class(inbox, demo, " coat ", ids)
    assert not inbox.classes(identity(demo))


def test_a_group_says_what_speaks_for_it_on_images_that_did_not_form_it(test_png, inbox, demo):
    keep(inbox, demo, files(test_png, Bag=(0, 90), Coat=(0, 90)), 1)
    stream = inbox.stream(identity(demo))
    rows = np.arange(len(stream))
    bags = rows[[name.startswith("Bag") for name in stream.names]]
    checks = candidates(demo, stream, rows)[0].checks
    assert checks.separation.members >= 5 and checks.separation.mmd_p <= 0.05
    assert 0 <= checks.entropy.of_classes <= np.log(len(demo.classes))
    # Every image twice: no copy of what formed the group stands for it.
    twice = np.concatenate([bags[:8], bags[:8]])
    (few,) = check_groups(demo, stream, twice, [bags[:8]])
    assert few.separation is None


def test_the_test_goes_on_from_where_it_was(test_png, inbox, demo):
    """A page that is opened again follows only what is new, with the same outcome."""
    before = None
    for number, part in enumerate(np.array_split(np.arange(120), 4)):
        some = [(f"Bag {n}.png", test_png("Bag", int(n))) for n in part]
        keep(inbox, demo, some + files(test_png, Coat=(30 * number, 30)), number)
        stream = inbox.stream(identity(demo))
        before = replay(demo, stream, before)
        whole = replay(demo, stream)
        assert outcome(before) == outcome(whole)
    inbox.delete(stream.ids[:5])
    left = inbox.stream(identity(demo))
    assert outcome(replay(demo, left, before)) == outcome(replay(demo, left))


def test_a_stream_that_lost_a_pass_is_followed_from_the_start(test_png, inbox, demo):
    """Also one in which nothing was flagged, so that all images are the same."""
    keep(inbox, demo, files(test_png, Bag=(0, 60)), 1)
    keep(inbox, demo, files(test_png, Coat=(0, 3)), 2)
    stream = inbox.stream(identity(demo))
    before = replay(demo, stream)
    gone = replace(stream, passes=stream.passes[:1], inspected=60)
    again = replace(gone, passes=np.array([gone.passes[0], [9, 50]]), inspected=110)
    assert not before.begins(gone) and not before.begins(again)
    assert outcome(replay(demo, again, before)) == outcome(replay(demo, again))
    empty = replay(demo, replace(stream, **nothing(stream), passes=stream.passes[1:]))
    assert replay(demo, gone, empty).monitor.inspected == 60


def test_what_is_kept_can_be_taken_back_and_deleted(page, test_png, inbox, demo):
    keep(inbox, demo, files(test_png, Bag=(0, 20)), 1)
    inbox.dismiss(inbox.stream(identity(demo)).ids[:3])
    page.run()
    page.switch_page("web/novelty_page.py").run()
    button(page, "Take back the 3 dismissed").click().run()
    assert not page.exception and not inbox.stream(identity(demo)).dismissed.any()
    button(page, "Delete what is older").click().run()
    assert len(inbox.stream(identity(demo))) > 5  # nothing is 90 days old
    assert button(page, "Delete everything").disabled
    next(box for box in page.checkbox if "delete all" in box.label).check().run()
    button(page, "Delete everything").click().run()
    assert not page.exception and "The inbox is empty" in texts(page)
    assert len(inbox.stream(identity(demo))) == 0


def test_dense_groups_leave_out_what_is_unlike_all_others(page, test_png, inbox, demo):
    keep(inbox, demo, files(test_png, Bag=(0, 90), Ankle_boot=(0, 90)), 1)
    page.run()
    page.switch_page("web/novelty_page.py").run()
    page.segmented_control[0].set_value(Grouping.DENSE).run()
    assert not page.exception
    stream = inbox.stream(identity(demo))
    rows = np.arange(len(stream))
    monitor = replay(demo, stream).monitor
    everything = find_candidates(demo, stream, rows, monitor)
    dense = find_candidates(demo, stream, rows, monitor, grouping=Grouping.DENSE)
    assert 0 < sum(len(c.rows) for c in dense) < 0.9 * len(rows)
    assert [c.rows.tolist() for c in dense] != [c.rows.tolist() for c in everything]


def test_what_was_picked_for_what_it_showed_proves_nothing(test_png, inbox, demo):
    """Only batches in which bags were seen are kept: the same bags that prove a class otherwise."""
    for number in range(8):
        bags = files(test_png, Bag=(20 * number, 20))
        keep(inbox, demo, bags, number, counted=False)
    stream = inbox.stream(identity(demo))
    assert not stream.counted.any() and stream.inspected == 0 and len(stream) > 100
    found = candidates(demo, stream, np.arange(len(stream)))
    assert found and not any(candidate.proven for candidate in found)
    # What is collected later, whatever it shows, is evidence in the groups that were picked.
    for number in range(8, 12):
        mixed = files(test_png, Bag=(20 * number, 10), Coat=(20 * number, 20))
        keep(inbox, demo, mixed, number)
    stream = inbox.stream(identity(demo))
    assert any(c.proven for c in candidates(demo, stream, np.arange(len(stream))))


def test_more_of_a_named_class_is_no_new_class_and_can_be_added_to_it(test_png, inbox, demo):
    for number in range(4):
        some = files(test_png, Bag=(30 * number, 30), Coat=(30 * number, 30))
        keep(inbox, demo, some, number)
    stream = inbox.stream(identity(demo))
    bags = np.array([name.startswith("Bag") for name in stream.names])
    first = np.flatnonzero(bags)[:60]
    number = name_class(inbox, demo, "Bag", stream.ids[first])
    left = np.setdiff1d(np.arange(len(stream)), first)
    found = candidates(demo, stream, left, named=inbox.classes(identity(demo)))
    more = [c for c in found if c.known_as == "Bag"]
    assert more and not any(c.proven for c in more)
    rest = np.flatnonzero(bags)[60:]
    assert name_class(inbox, demo, "bag", stream.ids[rest]) == number
    (named,) = in_force(inbox.classes(identity(demo)))
    assert named.name == "Bag" and len(named.sha256) == bags.sum()
    with pytest.raises(ValueError, match="teach Bag already"):
        name_class(inbox, demo, "Handbag", stream.ids[first])
    inbox.delete(stream.ids)
    with zipfile.ZipFile(io.BytesIO(labelled_set(inbox, named))) as archive:
        assert len(archive.namelist()) == bags.sum()  # its pictures outlive the items
    with pytest.raises(ValueError, match="0 different ones are in the inbox now"):
        name_class(inbox, demo, "Gone", stream.ids[first])


def test_batches_are_collected_once_switched_on_beforehand(page, test_png, inbox, demo):
    upload(page, files(test_png, Bag=(0, 14)))
    page.toggle(key="collecting").set_value(True).run()
    assert len(inbox.stream(identity(demo))) == 0  # it was seen before
    upload(page, files(test_png, Bag=(20, 12), Coat=(0, 8)))
    said = "\n".join(str(element.value) for element in page.success)
    assert not page.exception and "are in the inbox" in said
    stream = inbox.stream(identity(demo))
    assert stream.inspected == 20 and stream.counted.all() and len(stream) >= 8
    page.run()
    assert inbox.stream(identity(demo)).inspected == 20
