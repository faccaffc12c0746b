"""Files to inspected images, with a reason for each that cannot be."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.inspection import Inspection
from app.uploads import RefusedImage, UploadedImage, prepare_upload
from app.workspace import Workspace
from models.classifier import NonFiniteOutput

_NON_FINITE = (
    "The classifier answers NaN or infinity for this image, so nothing can be said of it. "
    "Check its weights, and the mean and std."
)


@dataclass(frozen=True)
class InspectedFiles:
    """What became of some files.

    Attributes:
        uploads: one for each file, in their order.
        images: the N of them that were inspected.
        inspection: theirs; None when N is 0.
    """

    uploads: tuple[UploadedImage | RefusedImage, ...]
    images: tuple[UploadedImage, ...]
    inspection: Inspection | None

    @property
    def refused(self) -> list[RefusedImage]:
        """Those that were not."""
        return [upload for upload in self.uploads if isinstance(upload, RefusedImage)]


def inspect_files(
    workspace: Workspace,
    files: Sequence[tuple[str, bytes] | RefusedImage],
    *,
    gradients: bool = False,
) -> InspectedFiles:
    """Decode and inspect; one bad file never sinks the others.

    Args:
        workspace: that inspects.
        files: names and contents, or what was refused before.
        gradients: see `Workspace.inspect`.
    """
    preprocessing = workspace.classifier.preprocessing
    uploads = [
        file if isinstance(file, RefusedImage) else prepare_upload(*file, preprocessing)
        for file in files
    ]
    try:
        return _inspect(workspace, uploads, gradients=gradients)
    except NonFiniteOutput:
        sound = [_refuse_non_finite(workspace, upload) for upload in uploads]
        return _inspect(workspace, sound, gradients=gradients)


def _inspect(
    workspace: Workspace, uploads: Sequence[UploadedImage | RefusedImage], *, gradients: bool
) -> InspectedFiles:
    images = tuple(upload for upload in uploads if isinstance(upload, UploadedImage))
    inspection = None
    if images:
        pixels = np.stack([image.pixels for image in images])
        inspection = workspace.inspect(pixels, gradients=gradients)
    return InspectedFiles(tuple(uploads), images, inspection)


def _refuse_non_finite(
    workspace: Workspace, upload: UploadedImage | RefusedImage
) -> UploadedImage | RefusedImage:
    if isinstance(upload, UploadedImage):
        try:
            workspace.classifier.observe(upload.pixels[None])
        except NonFiniteOutput:
            return RefusedImage(upload.name, _NON_FINITE)
    return upload
