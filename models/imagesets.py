"""Folders of images by class."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Self, TypeVar

from torchvision.datasets.folder import find_classes

from models.images import DecodedImage, ImageRefused, decode_image

T = TypeVar("T")


@dataclass(frozen=True)
class ImageFolder:
    """Images under one folder per class, in a fixed order.

    Attributes:
        root: the folder that holds the class folders.
        classes: names of the class folders, sorted.
        names: path of each file relative to `root`, with forward slashes, N of them.
        labels: index into `classes` of each file.
    """

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]

    @classmethod
    def open(cls, root: str | Path) -> Self:
        """List a folder; hidden files are passed over, everything else must decode or is refused.

        Raises:
            FileNotFoundError: when `root` is no folder, or has no class folders, or no files.
        """
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is not a folder.")
        classes, index = find_classes(str(root))
        found = [
            (path.relative_to(root).as_posix(), index[name])
            for name in classes
            for path in sorted((root / name).rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        ]
        if not found:
            raise FileNotFoundError(f"{root} has class folders but not one file in them.")
        names, labels = zip(*found, strict=True)
        return cls(root=root, classes=tuple(classes), names=names, labels=labels)

    def __len__(self) -> int:
        return len(self.names)

    def read(
        self, rows: Sequence[int], keep: Callable[[DecodedImage], T]
    ) -> Iterator[T | ImageRefused]:
        """Decode some rows on all cores; yields what `keep` makes of each, in their order.

        `keep` runs in the decoding thread, so that only what it returns waits in memory.
        """
        with ThreadPoolExecutor(cpu_count()) as pool:
            yield from pool.map(lambda row: self._read_one(row, keep), rows)

    def _read_one(self, row: int, keep: Callable[[DecodedImage], T]) -> T | ImageRefused:
        try:
            return keep(decode_image((self.root / self.names[row]).read_bytes()))
        except ImageRefused as refused:
            return refused
        except OSError as error:
            return ImageRefused(f"The file cannot be read: {error.strerror}.")
