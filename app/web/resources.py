"""What all users share: opened workspaces, and the one thread that runs classifiers."""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import streamlit as st
import torch

from app.workspace import Workspace
from models.classifier import NonFiniteOutput


@st.cache_resource(show_spinner="Opening the workspace ...", max_entries=4)
def open_workspace(path: str) -> Workspace:
    """A workspace, opened once for all sessions; kept warm by one inspection.

    Raises:
        WorkspaceError: see `Workspace.open`.
    """
    # One core stays free for the screens: the script threads and the web server.
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    faiss.omp_set_num_threads(1)
    workspace = Workspace.open(Path(path))
    shape = workspace.classifier.preprocessing.shape
    with contextlib.suppress(NonFiniteOutput):  # of a black image a network may think nothing
        workspace.inspect(np.zeros((1, *shape), np.uint8), influences=True)
    return workspace


@st.cache_resource
def inference_executor() -> ThreadPoolExecutor:
    """One worker: two users' batches take turns, micro-batch by micro-batch."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
