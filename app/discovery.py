"""From flagged images in the inbox to classes that were named and learned."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.inbox import Inbox, identity
from app.inbox_contents import Flagged, NewClass, Stream
from app.inspection import Inspection
from app.learning import LearnedClasses, NamedImages
from app.uploads import UploadedImage
from app.workspace import Workspace
from ood.clusters import cluster_by_means
from ood.decision import Rule
from ood.new_class import FlaggedCalibration
from ood.new_class_monitor import NewClassMonitor
from ood.novelty import SMALLEST_GROUP, group_tight

LEVEL = 0.05
FALSE_ALARM = 0.05


@dataclass(frozen=True)
class Candidate:
    """Flagged images that are alike: perhaps a class.

    Attributes:
        rows: (M,) of the stream, those of the core first.
        core: how many of them lie where later images fell too often to be known ones.
        confirmed_at: how many images had been inspected when that was proven; 0 while it is not.
        stability: from 0 to 1; 0.75 and more is stable.
    """

    rows: np.ndarray
    core: int
    confirmed_at: int
    stability: float

    @property
    def proven(self) -> bool:
        """Whether it is a new class, but for the chance of a false alarm."""
        return self.confirmed_at > 0


def keep_flagged(
    inbox: Inbox, workspace: Workspace, pass_id: str, images: Sequence[UploadedImage],
    inspection: Inspection, level: float,
) -> tuple[bool, int]:  # fmt: skip
    """Put what the default detector flags at this level into the inbox.

    Returns:
        Whether it was added (a pass is added once only), and how many images are flagged.

    Raises:
        InboxError: when it cannot be written.
    """
    p_values = inspection.p_values[workspace.manifest.detector]
    rows = np.flatnonzero(p_values <= level)
    flagged = Flagged(
        positions=rows,
        sha256=[images[int(row)].sha256 for row in rows],
        names=[images[int(row)].name for row in rows],
        pictures=[images[int(row)].picture for row in rows],
        p_values=p_values[rows],
        predicted=inspection.predicted[rows],
        features=np.asarray(inspection.activations.features[rows], np.float32),
    )
    added = inbox.add(
        identity(workspace), pass_id, level=level, inspected=len(images), flagged=flagged
    )
    return added, len(rows)


def replay(workspace: Workspace, stream: Stream) -> NewClassMonitor:
    """The sequential test over everything in the inbox; the same stream, the same outcome."""
    features = np.asarray(workspace.calibration.images.activations.features)
    flagged = workspace.calibration_flagged(Rule(LEVEL))
    calibration = FlaggedCalibration.of(features, flagged)
    chosen = stream.p_values <= LEVEL
    return NewClassMonitor.start(calibration, group_tight, FALSE_ALARM).extend(
        stream.sha256[chosen].tolist(), stream.vectors.features[chosen],
        stream.inspected_before[chosen], stream.inspected,
    )  # fmt: skip


def find_candidates(workspace: Workspace, stream: Stream, rows: np.ndarray) -> list[Candidate]:
    """Groups of flagged images, those with a proven core first, then the larger ones.

    Groups are made by k-means: on penultimate features a class that the network does not know is
    spread out. What is put to the test are tight groups, which hold fewer of its images and hardly
    any others.

    Args:
        workspace: whose inbox it is.
        stream: everything in the inbox.
        rows: (N,) of the stream, those that wait for a person.
    """
    if len(rows) < SMALLEST_GROUP:
        return []
    monitor, clusters = replay(workspace, stream), cluster_by_means(stream.vectors.features[rows])
    cores = [
        (np.array([monitor.ids[member] for member in new.members]), new.proposal)
        for new in monitor.new_classes()
    ]
    found = []
    for number in range(len(clusters)):
        members = rows[clusters.members(number)]
        inside, confirmed_at = np.zeros(len(members), bool), 0
        for core, proposal in cores:
            # What is left of a core that was named is not proven anew.
            if np.isin(core, stream.sha256[members]).mean() > 0.5:
                inside |= np.isin(stream.sha256[members], core)
                confirmed_at = min(filter(None, [confirmed_at, proposal.confirmed_at]))
        members = np.concatenate([members[inside], members[~inside]])
        stability = float(clusters.stability[number])
        found.append(Candidate(members, int(inside.sum()), confirmed_at, stability))
    return sorted(
        (candidate for candidate in found if len(candidate.rows) >= SMALLEST_GROUP),
        key=lambda candidate: (not candidate.proven, -len(candidate.rows)),
    )


def in_force(classes: Sequence[NewClass]) -> list[NewClass]:
    """Those that were not taken back."""
    return [named for named in classes if not named.undone]


def learn(workspace: Workspace, classes: Sequence[NewClass]) -> LearnedClasses:
    """What the named classes make of the workspace's last layer.

    Raises:
        ValueError: see `LearnedClasses.learn`.
    """
    return LearnedClasses.learn(workspace, named_images(classes))


def named_images(classes: Sequence[NewClass]) -> list[NamedImages]:
    """The images of the classes in force."""
    return [NamedImages(named.name, named.vectors.features) for named in in_force(classes)]


def labelled_set(inbox: Inbox, workspace: Workspace, named: NewClass) -> bytes:
    """A zip of the pictures that taught a class, in a folder of its name.

    Raises:
        InboxError: when they cannot be read.
    """
    stream = inbox.stream(identity(workspace))
    _, first = np.unique(stream.sha256, return_index=True)
    chosen = first[np.isin(stream.sha256[first], named.sha256)]
    pictures = inbox.pictures(stream.ids[chosen])
    folder = "".join(letter if letter.isalnum() else "_" for letter in named.name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for row in chosen:
            if (known_by := int(stream.ids[row])) in pictures:
                archive.writestr(f"{folder}/{stream.sha256[row]}.webp", pictures[known_by])
    return buffer.getvalue()
