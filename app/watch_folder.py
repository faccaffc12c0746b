"""A folder that is watched: its new image files, each once, become a stream."""

import os
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from app.inspecting import inspect_files
from app.uploads import RefusedImage, UploadedImage, printable, read_paths
from app.watch_contents import RefusedFile, arrivals_of
from app.watching import Watch
from app.workspace import Workspace
from ood.monitoring.monitor import Decided

_QUIET_S = 2.0
_AT_ONCE = 256
# What programs call a file that they have not finished, and then rename.
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".download")


@dataclass(frozen=True)
class Batch:
    """What some files of a folder became.

    Attributes:
        decided: of the images, in order.
        refused: files that no score can be given.
        passed_over: rows that came before, of a file of scores; they were not taken again.
    """

    decided: tuple[Decided, ...] = ()
    refused: tuple[RefusedFile, ...] = ()
    passed_over: int = 0

    def __bool__(self) -> bool:
        return bool(self.decided or self.refused or self.passed_over)


@dataclass(frozen=True)
class _Found:
    path: Path
    name: str
    source: str
    changed: int  # nanoseconds since 1970


class WatchedFolder:
    """The files of one folder and of those in it, on their way into a stream.

    They come in order of their time of modification. A file waits until it has not changed for two
    seconds; one that changes later comes again, since it is another image. Hidden files, and those
    whose names say that they are not finished, are passed over. Which ones came before is in the
    stream's log, so that a restart takes none twice, and several processes may watch one folder.

    Attributes:
        waiting: files that were there at the last look and had just changed.
    """

    def __init__(self, watch: Watch, workspace: Workspace, path: Path) -> None:
        """Of a stream of this workspace."""
        self._watch, self._workspace, self._path = watch, workspace, path
        self._done: set[str] = set()
        self._seen: dict[str, float] = {}
        self._queue: list[_Found] = []
        self.waiting = 0

    def step(self) -> Batch:
        """Take the next files, at most 256; an empty batch where there are none.

        A file that cannot be read, or is no image, becomes a row with its reason.

        Raises:
            StoreError: when the stream cannot be written; the files then come again.
        """
        if not self._queue:
            self._queue = self._look()
        files = self._queue[:_AT_ONCE]
        batch = self._take(files) if files else Batch()
        self._queue = self._queue[len(files) :]
        self._done.update(file.source for file in files)
        return batch

    def _look(self) -> list[_Found]:
        """New files that have not changed for a while, the longest unchanged one first."""
        new = [file for file in _files(self._path) if file.source not in self._done]
        seen, now = {}, time.monotonic()
        for file in new:
            seen[file.source] = self._seen.get(file.source, now)
        self._seen = seen
        # By both clocks: a file server's may be ahead of this one's.
        quiet = [
            file
            for file in new
            if time.time() - file.changed / 1e9 >= _QUIET_S or now - seen[file.source] >= _QUIET_S
        ]
        self.waiting = len(new) - len(quiet)
        taken = self._watch.taken([file.source for file in quiet])
        self._done |= taken
        left = [file for file in quiet if file.source not in taken]
        return sorted(left, key=lambda file: (file.changed, file.name))

    def _take(self, files: list[_Found]) -> Batch:
        read = [(file, _read(file)) for file in files]
        # One that changed meanwhile may be half of each; it comes again as another.
        whole = [(file, data) for file, data in read if not _has_changed(file)]
        found = inspect_files(self._workspace, [data for _, data in whole])
        of_file = [(file, u) for (file, _), u in zip(whole, found.uploads, strict=True)]
        sources = [file.source for file, upload in of_file if isinstance(upload, UploadedImage)]
        arrivals = []
        if found.inspection is not None:
            arrivals = arrivals_of(self._workspace, found.images, found.inspection)
        refused = [
            RefusedFile(file.name, upload.reason, file.source)
            for file, upload in of_file
            if isinstance(upload, RefusedImage)
        ]
        decided = self._watch.arrive(
            [replace(a, source=s) for a, s in zip(arrivals, sources, strict=True)], refused
        )
        return Batch(tuple(decided), tuple(refused))


def _files(folder: Path) -> list[_Found]:
    """All that are there now; what cannot be looked at is passed over until it can."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() in _UNFINISHED:
                continue
            try:
                facts = path.stat()
            except OSError:
                continue  # gone since
            if not path.is_file():
                continue  # a pipe would be waited for
            shown = printable(path.relative_to(folder))
            found.append(_Found(path, shown, _source(shown, facts), facts.st_mtime_ns))
    return found


def _source(name: str, facts: os.stat_result) -> str:
    return f"{name}\n{facts.st_size}\n{facts.st_mtime_ns}"


def _has_changed(file: _Found) -> bool:
    try:
        return _source(file.name, file.path.stat()) != file.source
    except OSError:
        return False  # gone, but it was read


def _read(file: _Found) -> tuple[str, bytes] | RefusedImage:
    entries = list(islice(read_paths([file.path]), 2))
    if len(entries) != 1:
        return RefusedImage(file.name, "A zip is no image; unpack it into the folder.")
    entry = entries[0]
    return RefusedImage(file.name, entry.reason) if isinstance(entry, RefusedImage) else (
        file.name, entry[1]
    )  # fmt: skip
