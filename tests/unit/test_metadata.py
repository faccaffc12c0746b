import numpy as np
import pytest

from app.metadata import MetadataRefused, read_metadata

NAMES = ["cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"]


def csv(*lines):
    return "\n".join(lines).encode()


def test_columns_become_groups_in_the_order_of_the_images():
    found = read_metadata(
        csv("file,where,who", "dog/3.png,out,ann", "cat/1.png,in,ann", "cat/2.png,out,bob"), NAMES
    )
    assert list(found) == ["where", "who"]
    assert found["where"].tolist() == ["in", "out", "out", "(not given)"]
    assert found["who"].tolist() == ["ann", "bob", "ann", "(not given)"]


def test_the_last_part_of_a_path_is_enough_where_it_tells_them_apart():
    found = read_metadata(csv("file,who", "1.png,ann", "4.png,bob"), NAMES)
    assert found["who"].tolist() == ["ann", "(not given)", "(not given)", "bob"]
    with pytest.raises(MetadataRefused, match="None of its files"):
        read_metadata(csv("file,who", "1.png,ann"), ["cat/1.png", "dog/1.png"])


def test_numbers_are_cut_into_quarters():
    names = [f"{n}.png" for n in range(100)]
    found = read_metadata(csv("file,iso", *(f"{n}.png,{n * 1.5}" for n in range(100))), names)
    groups, counts = np.unique(found["iso"], return_counts=True)
    assert counts.tolist() == [25] * 4 and len(groups) == 4
    few = read_metadata(csv("file,year", *(f"{n}.png,{2020 + n % 3}" for n in range(100))), names)
    assert sorted(set(few["year"])) == ["2020", "2021", "2022"]


def test_numbers_of_some_images_only():
    names = [f"{n}.png" for n in range(100)]
    found = read_metadata(csv("file,iso", *(f"{n}.png,{n}" for n in range(60))), names)
    assert (found["iso"] == "(not given)").sum() == 40 and len(set(found["iso"])) == 5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no CSV"),
        (b"\xff\xfe\x00\x00", "no CSV|No column"),
        (csv("name,who", "cat/1.png,ann"), "No column is called file; there are name, who"),
        (csv("file,who", "x.png,ann"), "None of its files is a calibration image.*cat/1.png"),
        (csv("file,who", "cat/1.png,a", "cat/1.png,b"), "twice: cat/1.png"),
        (csv("file", "cat/1.png"), "No column tells groups apart"),
        (csv("file,who", *(f"{n},ann" for n in NAMES)), "No column tells groups apart"),
    ],
)
def test_what_is_no_table_of_them_is_refused(data, reason):
    with pytest.raises(MetadataRefused, match=reason):
        read_metadata(data, NAMES)


def test_a_column_of_names_is_no_group():
    names = [f"{n}.png" for n in range(100)]
    table = csv("file,id,who", *(f"{n}.png,id-{n},{'ab'[n % 2]}" for n in range(100)))
    assert list(read_metadata(table, names)) == ["who"]


def test_blanks_are_not_given():
    names = [f"{n}.png" for n in range(100)]
    lines = [f"{n}.png,{n or ''},{'in' if n % 2 else ''}" for n in range(100)]
    found = read_metadata(csv("file,age,where", *lines), names)
    assert found["age"][0] == "(not given)" and len(set(found["age"])) == 5
    assert set(found["where"]) == {"in", "(not given)"}


def test_lines_without_a_file_and_infinite_numbers_do_no_harm():
    names = [f"{n}.png" for n in range(60)]
    lines = [f"{n}.png,{n},{'ab'[n % 2]}" for n in range(60)]
    lines[3] = "3.png,inf,a"
    found = read_metadata(csv("file,iso,who", ",1,a", ",2,b", *lines), names)
    assert list(found) == ["who"] and len(found["who"]) == 60  # iso is no column of numbers
