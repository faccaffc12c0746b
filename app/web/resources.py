"""What all users share: opened workspaces, and the one thread that runs classifiers."""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
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
    example = workspace.classifier.preprocessing
    shape = (1, example.channels, example.image_size, example.image_size)
    with contextlib.suppress(NonFiniteOutput):  # of a black image a network may think nothing
        workspace.inspect(torch.zeros(shape, dtype=torch.uint8).numpy(), influences=True)
    return workspace


@st.cache_resource
def inference_executor() -> ThreadPoolExecutor:
    """One worker: two users' batches take turns, micro-batch by micro-batch."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
