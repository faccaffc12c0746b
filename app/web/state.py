"""What one session remembers, in one typed place."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from app.web.job import InspectionJob
from app.web.resources import inference_executor
from app.workspace import Workspace

_KEY = "kindred"


@dataclass
class Session:
    """One person's session.

    Attributes:
        job: the latest batch; None before the first.
        selected: row of the batch's image that is shown in detail; None for the oddest.
        source: key of the drop area that the batch came from; "" for samples and the camera.
        uploads: counts cleared uploads; part of the uploader's key.
        steps: counts moves by button or key; part of the table's key, so that it follows.
        gradients: whether every detector scores, at whatever cost; see `Workspace.inspect`.
    """

    job: InspectionJob | None = None
    selected: int | None = None
    source: str = ""
    uploads: int = 0
    steps: int = 0
    gradients: bool = False

    def start(
        self, workspace: Workspace, files: Sequence[tuple[str, bytes]], source: str = ""
    ) -> None:
        """Inspect these files; what was under way is dropped."""
        self.clear()
        self.source = source
        executor = inference_executor()
        self.job = InspectionJob(workspace, files, executor, gradients=self.gradients)

    def clear(self) -> None:
        """Forget the batch."""
        if self.job is not None:
            self.job.cancel()
        self.job = None
        self.selected = None
        self.steps += 1

    def select(self, row: int) -> None:
        """Show an image in detail."""
        self.selected = row
        self.steps += 1


def session() -> Session:
    """This session's state, made at first use."""
    state: Session = st.session_state.setdefault(_KEY, Session())
    return state
