"""Sharing the blame among groups that hurt, on the Training set page."""

import re

import numpy as np
import pytest

from app.web import group_values
from explain.effects import GroupEffect
from explain.head import RefitDidNotConverge
from explain.semivalues import Ending, GroupValues
from tests.app.screens import texts

BUTTON, SHARE = "Share the blame fairly", "Share of the loss it adds"


@pytest.fixture
def groups(page, monkeypatch, tmp_path):
    monkeypatch.setenv("KINDRED_HOME", str(tmp_path))
    page.run()
    page.switch_page("web/training_page.py").run()
    page.session_state["view"] = "Groups that hurt"
    page.session_state["slice"] = "Shirt"
    return page.run()


def button(page):
    return next((found for found in page.button if found.label == BUTTON), None)


def shares(page):
    (table,) = (t.value for t in page.dataframe if SHARE in t.value)
    return table


def percent(column):
    return np.array([float(text.removesuffix("%")) for text in column])


def test_shares_are_of_the_groups_shown_and_add_up(groups, demo):
    assert not any(SHARE in table.value for table in groups.dataframe)
    button(groups).click().run()
    assert not groups.exception
    table = shares(groups)
    said = texts(groups)
    shown = re.findall(r"\*\*Group (\d)\*\*: ([\d,]+) images labelled (\S+)\.", said)
    assert len(table) == len(shown) + 1 == 6
    for (number, images, label), row in zip(shown, table.itertuples(index=False), strict=False):
        assert row.Group == f"{number}: {label}".replace("\\", "")
        assert row.Images == int(images.replace(",", ""))
    values, predicted = percent(table[SHARE]), percent(table["Predicted by influence"])
    assert values[-1] == pytest.approx(values[:-1].sum(), abs=0.03)  # of rounding
    assert predicted[-1] == pytest.approx(predicted[:-1].sum(), abs=0.03)
    assert (predicted > 0).all() and values[-1] > 0
    assert "All 32 combinations of groups were refitted, so it is exact" in said
    assert "add up to what all of them do together" in said


def test_they_stay_until_other_images_are_asked_about(groups, monkeypatch):
    button(groups).click().run()
    monkeypatch.setattr(group_values, "shapley_values", None)  # found again, not computed again
    assert len(shares(groups.run())) == 6
    groups.selectbox(key="slice").set_value("Dress").run()
    assert not groups.exception and button(groups) is not None
    assert not any(SHARE in table.value for table in groups.dataframe)


def test_a_refit_that_does_not_settle_is_said(groups, monkeypatch):
    def fail(*given, **options):
        raise RefitDidNotConverge("It did not settle.")

    groups.selectbox(key="slice").set_value("Coat").run()
    monkeypatch.setattr(group_values, "shapley_values", fail)
    button(groups).click().run()
    assert not groups.exception and "It did not settle." in texts(groups)


def test_sampled_shares_come_with_their_errors(groups, monkeypatch):
    def sampled(refits, rows, utility, progress):
        progress(1_234, 2_000)
        count = len(rows)
        return GroupValues(
            np.full(count, -0.01), np.full(count, 0.002), -0.01 * count, 12, 1_234, Ending.MAXIMUM
        )

    monkeypatch.setattr(group_values, "shapley_values", sampled)
    groups.selectbox(key="slice").set_value("Pullover").run()
    button(groups).click().run()
    assert not groups.exception
    for text in shares(groups)[SHARE][:-1]:
        assert re.fullmatch(r"\+\d+\.\d\d% ± \d+\.\d\d%", text)
    assert "After 1,234 refits it was stopped" in texts(groups)


def test_one_group_has_nothing_to_share(monkeypatch):
    monkeypatch.setattr(group_values.st, "button", None)
    group = GroupEffect(np.arange(3), 0, -0.1)
    group_values.show_group_values(None, [group], None, ["a"])
