"""A batch being inspected in the background, so that the page stays usable."""

import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice

from app.inspecting import inspect_files
from app.inspection import Inspection
from app.uploads import RefusedImage, UploadedImage, count_files, expand
from app.workspace import Workspace

MICRO_BATCH = 16
ABANDONED_AFTER_S = 120.0


@dataclass(frozen=True)
class Batch:
    """Inspected images and refused files.

    Attributes:
        images: N images.
        inspection: theirs; None when N is 0.
        refused: the other files.
        digest: hex sha256 over the images' identities and names; a key for caches.
    """

    images: tuple[UploadedImage, ...]
    inspection: Inspection | None
    refused: tuple[RefusedImage, ...]
    digest: str


class InspectionJob:
    """Decodes and inspects files, a micro-batch at a time, on a shared executor.

    Attributes:
        total: files to do, as far as is known beforehand.
        done: files done.
        batch: the result; None until the end.
        error: why it stopped early, for a person; "" when it did not.
    """

    def __init__(
        self,
        workspace: Workspace,
        files: Sequence[tuple[str, bytes]],
        executor: Executor,
        *,
        gradients: bool = False,
    ) -> None:
        self.total = count_files(files)
        self.done = 0
        self.batch: Batch | None = None
        self.error = ""
        self._workspace = workspace
        self._files = expand(files)
        self._executor = executor
        self._gradients = gradients
        self._images: list[UploadedImage] = []
        self._refused: list[RefusedImage] = []
        self._parts: list[Inspection] = []
        self._cancelled = False
        self._watched_at = time.monotonic()
        executor.submit(self._step)

    @property
    def running(self) -> bool:
        """Whether there is more to come."""
        return self.batch is None and not self.error

    def watch(self) -> None:
        """Say that somebody still waits; a job that nobody watches for two minutes stops."""
        self._watched_at = time.monotonic()

    def cancel(self) -> None:
        """Stop after the current micro-batch."""
        self._cancelled = True

    def _step(self) -> None:
        if self._cancelled or time.monotonic() - self._watched_at > ABANDONED_AFTER_S:
            self.error = "The inspection was stopped, since nobody waited for it."
            return
        try:
            files = list(islice(self._files, MICRO_BATCH))
            if files:
                self._inspect(files)
                self._executor.submit(self._step)
            else:
                self.batch = self._finished()
        except Exception:
            logging.getLogger(__name__).exception("An inspection stopped.")
            self.error = (
                f"The inspection stopped after {self.done} of {self.total} files because of an "
                "error in Kindred; the server's log has it. Nothing was lost: try again."
            )

    def _inspect(self, files: list[tuple[str, bytes] | RefusedImage]) -> None:
        found = inspect_files(self._workspace, files, gradients=self._gradients)
        self._refused += found.refused
        self._images += found.images
        if found.inspection is not None:
            self._parts.append(found.inspection)
        self.done += len(files)

    def _finished(self) -> Batch:
        digest = hashlib.sha256("\n".join(f"{i.sha256} {i.name}" for i in self._images).encode())
        return Batch(
            images=tuple(self._images),
            inspection=Inspection.join(self._parts) if self._parts else None,
            refused=tuple(self._refused),
            digest=digest.hexdigest(),
        )
