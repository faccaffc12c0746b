"""Driving the Inspect page without a browser."""

import time

from streamlit.testing.v1 import AppTest

from app.web.state import _KEY


def texts(page) -> str:
    parts = [page.markdown, page.caption, page.subheader, page.error, page.info, page.warning]
    return "\n".join(str(element.value) for group in parts for element in group)


def settled(page) -> AppTest:
    """Run until the job in the background is done."""
    deadline = time.monotonic() + 60
    job = page.session_state[_KEY].job
    while job is not None and job.running and time.monotonic() < deadline:
        time.sleep(0.02)
    page.run()
    assert not page.exception
    return page


def upload(page, files) -> AppTest:
    page.run()
    uploader = page.file_uploader[0]
    for name, data in files:
        uploader.upload(name, data)
    page.run()
    return settled(page)


def sample(page, name) -> AppTest:
    page.run()
    next(button for button in page.button if button.label == name).click()
    page.run()
    return settled(page)
