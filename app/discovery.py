"""From flagged images in the inbox to classes that were named and learned."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from app.candidate_checks import Checks, check_groups
from app.inbox import Inbox, identity
from app.inbox_contents import Flagged, NewClass, Stream
from app.inspection import Inspection
from app.learning import LearnedClasses, NamedImages
from app.new_class_replay import LEVEL
from app.uploads import UploadedImage
from app.workspace import Workspace
from ood.clusters import Progress, cluster_by_density, cluster_by_means, no_progress
from ood.new_class import Proposal
from ood.new_class_monitor import NewClassMonitor
from ood.novelty import SMALLEST_GROUP


class Grouping(StrEnum):
    """How flagged images are put together."""

    ALL = "all of them"
    DENSE = "only what lies close"


@dataclass(frozen=True)
class Candidate:
    """Flagged images that are alike: perhaps a class.

    Attributes:
        rows: (M,) of the stream, those of the core first.
        core: how many of them lie where later images fell too often to be known ones.
        proof: the test that the core passed; None while it is not proven.
        stability: from 0 to 1; 0.75 and more is stable. NaN for the only group.
        known_as: the named class that most of them are recognised as; "" for none.
        checks: what else speaks for or against it.
    """

    rows: np.ndarray
    core: int
    proof: Proposal | None
    stability: float
    checks: Checks
    known_as: str = ""

    @property
    def proven(self) -> bool:
        """Whether it is a new class, but for the chance of a false alarm."""
        return self.proof is not None


def keep_flagged(
    inbox: Inbox, workspace: Workspace, pass_id: str, images: Sequence[UploadedImage],
    inspection: Inspection, level: float, *, counted: bool,
) -> tuple[bool, int]:  # fmt: skip
    """Put what the default detector flags, at this level or at 5%, into the inbox.

    Args:
        inbox: where they go.
        workspace: that inspected them.
        pass_id: see `Inbox.add`.
        images: of the pass, all of them.
        inspection: theirs.
        level: share of known images that is flagged.
        counted: whether it was settled before the images were inspected that they would be kept,
            whatever they show. Only then they are evidence for a new class.

    Returns:
        Whether it was added (a pass is added once only), and how many images are flagged.

    Raises:
        InboxError: when it cannot be written.
    """
    p_values = inspection.p_values[workspace.manifest.detector]
    level = max(level, LEVEL)
    rows = np.flatnonzero(p_values <= level)
    flagged = Flagged(
        positions=rows,
        sha256=[images[int(row)].sha256 for row in rows],
        names=[images[int(row)].name for row in rows],
        pictures=[images[int(row)].picture for row in rows],
        p_values=p_values[rows],
        predicted=inspection.predicted[rows],
        features=np.asarray(inspection.activations.features[rows], np.float32),
        means=workspace.novelty_layer.kept(inspection.activations.take(rows)),
    )
    added = inbox.add(
        identity(workspace), pass_id, level=level, inspected=len(images) if counted else 0,
        flagged=flagged,
    )  # fmt: skip
    return added, len(rows)


def find_candidates(
    workspace: Workspace, stream: Stream, rows: np.ndarray,
    monitor: NewClassMonitor,
    learned: LearnedClasses | None = None,
    grouping: Grouping = Grouping.ALL, progress: Progress = no_progress,
) -> list[Candidate]:  # fmt: skip
    """Groups of flagged images, those with a proven core first, then the larger ones.

    What is put to the test are tight groups of their own, which hold fewer of a class's images and
    hardly any others; a group shown has what lies in a proven one as its core.

    Args:
        workspace: whose inbox it is.
        stream: everything in the inbox.
        rows: (N,) of the stream, those that wait for a person.
        monitor: see `replay`.
        learned: the classes that are named already.
        grouping: how.
        progress: called with the share of the work that is done.
    """
    if len(rows) < SMALLEST_GROUP:
        return []
    features = workspace.novelty_layer.features(stream.vectors)[rows]
    make = cluster_by_means if grouping is Grouping.ALL else cluster_by_density
    clusters = make(features, progress=progress)
    groups = [rows[clusters.members(number)] for number in range(len(clusters))]
    checks = check_groups(workspace, stream, rows, groups)
    cores = [
        (np.array([monitor.ids[member] for member in new.members]), new.proposal)
        for new in monitor.new_classes()
    ]
    found = []
    for members, firmness, checked in zip(groups, clusters.stability, checks, strict=True):
        known_as = _known_as(learned, stream.vectors.features[members])
        inside, proof = np.zeros(len(members), bool), None
        for core, proposal in cores:
            # What is left of a core that was named is not proven anew.
            if not known_as and np.isin(core, stream.sha256[members]).mean() > 0.5:
                inside |= np.isin(stream.sha256[members], core)
                proof = min(filter(None, [proof, proposal]), key=_confirmed_at)
        members = np.concatenate([members[inside], members[~inside]])
        firmness = float(firmness) if len(groups) > 1 else float("nan")
        found.append(Candidate(members, int(inside.sum()), proof, firmness, checked, known_as))
    return sorted(
        (candidate for candidate in found if len(candidate.rows) >= SMALLEST_GROUP),
        key=lambda candidate: (not candidate.proven, -len(candidate.rows)),
    )


def _known_as(learned: LearnedClasses | None, features: np.ndarray) -> str:
    """The named class that more than half of (M, D) images are recognised as."""
    if learned is None:
        return ""
    places = learned.recognise(features, LEVEL)
    counts = np.bincount(places[places >= 0], minlength=len(learned.names))
    return learned.names[int(counts.argmax())] if counts.max() > len(places) / 2 else ""


def _confirmed_at(proposal: Proposal) -> int:
    return proposal.confirmed_at or 0


def name_class(
    inbox: Inbox, workspace: Workspace, name: str, ids: Sequence[int] | np.ndarray
) -> int:
    """Remember a new class by the images that teach it; returns its number.

    Raises:
        ValueError: when the name is that of a known class, or see `Inbox.save_class`.
        InboxError: when it cannot be written.
    """
    same = [known for known in workspace.classes if known.casefold() == name.strip().casefold()]
    if same:
        raise ValueError(
            f"{same[0]} is a class that the model knows already. If these are more of it, say so "
            "by *Nothing new*; a new class needs a name of its own."
        )
    return inbox.save_class(identity(workspace), name, ids)


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


def labelled_set(inbox: Inbox, named: NewClass) -> bytes:
    """A zip of the pictures that taught a class, in a folder of its name.

    Raises:
        InboxError: when they cannot be read.
    """
    folder = "".join(letter if letter.isalnum() else "_" for letter in named.name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for digest, picture in sorted(inbox.class_pictures(named.id).items()):
            archive.writestr(f"{folder}/{digest}.webp", picture)
    return buffer.getvalue()
