"""What the operator is asked: one image at a time, beside what the network learned from."""

import time
from collections.abc import Sequence
from uuid import uuid4

import streamlit as st

from app.records import NEIGHBOURS_SHOWN
from app.watch_contents import NO_CLASS
from app.watch_tables import StoreError
from app.watching import Question, Watch
from app.web.pictures import enlarged, gallery
from app.web.watch_streams import open_turns
from app.web.watch_turns import Turn
from app.web.wording import literal, plain
from app.workspace import Workspace
from models.images import decode_image
from ood.monitoring.payoffs import Answer
from ood.monitoring.report import Report

_SIDE, _NEAREST_SIDE = 224, 64
_SAID, _OPERATOR, _SHOWN = "watch-said", "watch-operator", "watch-shown"
_FIRST, _BEHIND = 5, 200
_LOOK_S = 0.6
_BUTTONS = (
    (Answer.KNOWN, "Known", "k", "check"),
    (Answer.UNKNOWN, "Unknown", "u", "close"),
    (Answer.DO_NOT_KNOW, "Do not know", "d", "question_mark"),
)


def show_queue(workspace: Workspace, watch: Watch, report: Report, by: str) -> None:
    """An image that waits, one of the first, with its buttons; others are shown another.

    Raises:
        StoreError: when it cannot be read.
    """
    waiting = report.asked - report.answered
    with st.container(border=True, key="watch-queue"):
        st.markdown(f"#### Is this one it should know? :gray-badge[{waiting:,} waiting]")
        if said := st.session_state.pop(_SAID, ""):
            st.warning(said, icon=":material/info:")
        questions = watch.questions(_FIRST)
        if not questions:
            words = "Nothing waits for an answer." if report.items else "No image has come yet."
            st.caption(f":material/check_circle: {words}")
            return
        turn = _turn(watch, questions)
        question = next(found for found in questions if found.item == turn.item)
        if report.items - questions[0].item > _BEHIND:
            _show_held_up(questions[0].item, turn.item)
        with st.container(horizontal=True, gap="medium"):
            with st.container(width=_SIDE):
                _show_picture(question)
            with st.container(width="stretch"):
                _show_question(workspace, question)
                _show_buttons(watch, turn.item, by)
        st.caption(
            "Known is an image of a kind that it learned. An answer is evidence, and evidence "
            "cannot be unseen: it cannot be taken back. *Do not know* counts against both claims."
        )


def _turn(watch: Watch, questions: Sequence[Question]) -> Turn:
    operator = st.session_state.setdefault(_OPERATOR, uuid4().hex)
    return open_turns().take(watch.number, operator, [question.item for question in questions])


def _show_held_up(oldest: int, shown: int) -> None:
    which = "this question" if shown == oldest else "the question about it, open elsewhere,"
    st.warning(
        f"What came after image {oldest:,} counts only once {which} is answered.",
        icon=":material/hourglass_top:",
    )


def _show_picture(question: Question) -> None:
    if question.picture:
        st.image(enlarged(question.picture, _SIDE), width=_SIDE, alt=f"image {question.item}")
    else:
        st.markdown("No picture, only a score.")
    st.caption(f"Image {question.item:,}: {literal(question.name)}, score {question.score:.4g}")


def _show_question(workspace: Workspace, question: Question) -> None:
    why = "it was flagged" if question.flagged else "it was accepted; a check by chance"
    says = ""
    if question.predicted != NO_CLASS:
        says = f" The network says **{plain(workspace.classes[question.predicted])}**."
    st.markdown(f"You are asked because {why}.{says}")
    st.caption(f"It has learned: {', '.join(map(plain, workspace.classes))}.")
    if question.picture:
        st.caption("Most alike to the model, among what it learned from:")
        rows = nearest(workspace.key, question.sha256, workspace, question.picture)
        labels = workspace.bank.images.labels
        names = [plain(workspace.classes[labels[row]]) for row in rows]
        gallery(workspace, rows, names, side=_NEAREST_SIDE)


@st.cache_data(max_entries=512, show_spinner=False)
def nearest(key: str, sha256: str, _workspace: Workspace, _picture: bytes) -> list[int]:
    """Rows of the training images that are most alike to a picture."""
    pixels = _workspace.classifier.preprocessing.pixels(decode_image(_picture).image)
    found = _workspace.bank.locate(_workspace.classifier.observe(pixels[None])).neighbours
    assert found is not None  # locate has just set them
    return [int(row) for row in found.rows[0, :NEIGHBOURS_SHOWN]]


def _show_buttons(watch: Watch, item: int, by: str) -> None:
    if st.session_state.get(_SHOWN, (0, 0, 0.0))[:2] != (watch.number, item):
        st.session_state[_SHOWN] = watch.number, item, time.monotonic()
    with st.container(horizontal=True, gap="xsmall"):
        for answer, words, key, icon in _BUTTONS:
            st.button(
                words,
                # The item is part of the key: a press is never taken for the next image.
                key=f"answer-{answer.name}-{watch.number}-{item}",
                icon=f":material/{icon}:",
                shortcut=key,
                on_click=_answer,
                args=(watch, item, answer, by),
            )


def _answer(watch: Watch, item: int, answer: Answer, by: str) -> None:
    *shown, since = st.session_state.get(_SHOWN, (0, 0, 0.0))
    if shown == [watch.number, item] and time.monotonic() - since < _LOOK_S:
        # Meant for the image before.
        st.toast(
            "The image had just changed, so the key did not count. Press it again.",
            icon=":material/keyboard:",
        )
        return
    try:
        taken = watch.answer(item, answer, by)
    except StoreError as error:
        st.session_state[_SAID] = f"The answer could not be written; give it again. {error}"
        return
    if not taken:
        st.session_state[_SAID] = (
            f"Somebody else had answered image {item:,} before; the first answer counts."
        )
