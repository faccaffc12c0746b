"""What one session remembers, in one typed place."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import streamlit as st

from app.counterfactual import Edit
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
        edits: of a workspace's training set, by its key: what was tried, the latest last.
        unflippable: features of the image for which no flip set was found last.
        metadata: of a workspace's calibration images, by its key; see `read_metadata`.
        metadata_file: which upload that was read from.
        training_row: of the Bank, shown in detail on the Training set page; -1 for the first.
        training_steps: counts moves there; part of the table's key, so that it follows.
        triage_failed: why a decision could not be written, said once.
        collecting: whether what is flagged in batches to come goes into the inbox.
        collects: whether that was so when this batch came, before anything was known of it.
        collected: digest of the batch that is in the inbox for it; "" for none.
        gradients: whether every detector scores, at whatever cost; see `Workspace.inspect`.
    """

    job: InspectionJob | None = None
    selected: int | None = None
    source: str = ""
    uploads: int = 0
    steps: int = 0
    edits: dict[str, list[Edit]] = field(default_factory=dict)
    unflippable: bytes = b""
    metadata: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    metadata_file: dict[str, str] = field(default_factory=dict)
    training_row: int = -1
    training_steps: int = 0
    triage_failed: str = ""
    collecting: bool = False
    collects: bool = False
    collected: str = ""
    gradients: bool = False

    def start(
        self, workspace: Workspace, files: Sequence[tuple[str, bytes]], source: str = ""
    ) -> None:
        """Inspect these files; what was under way is dropped."""
        self.clear()
        self.source = source
        self.collects = self.collecting
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
