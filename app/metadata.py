"""A table of the user's own about the calibration images: who took them, where, on what day."""

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd

LARGEST_FILE = 50 * 2**20
MOST_GROUPS = 40
_PARTS = 4
_MISSING = "(not given)"


class MetadataRefused(ValueError):
    """A table that says nothing about the calibration images."""


def read_metadata(data: bytes, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Column by column, the group that each calibration image belongs to.

    A column of numbers with many values is cut into quarters of equally many images. Left out are
    columns with one value only, and of words with more than 40: they name images, not groups.

    Args:
        data: CSV with a heading; one column is called `file` and holds paths as the calibration
            folder has them, or their last part where that is enough to tell them apart.
        names: n paths of the calibration images.

    Returns:
        Column to (n,) str, "(not given)" for a blank and for an image that is not in the table.

    Raises:
        MetadataRefused: when it is no such table.
    """
    if len(data) > LARGEST_FILE:
        raise MetadataRefused(f"The table is larger than {LARGEST_FILE >> 20} MB.")
    try:
        table = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise MetadataRefused(f"This is no CSV table: {error}") from error
    if "file" not in table:
        raise MetadataRefused(f"No column is called file; there are {_some(table.columns)}.")
    table = table[table["file"] != ""]
    if (twice := table["file"].duplicated()).any():
        raise MetadataRefused(f"Some files are there twice: {_some(table['file'][twice])}.")
    rows = table.set_index("file").reindex(_keys(table["file"], names))
    if not (known := rows.index.isin(table["file"])).any():
        raise MetadataRefused(
            f"None of its files is a calibration image. They are called like {names[0]}."
        )
    groups = {str(c): _grouped(rows[c].where(known & (rows[c] != ""))) for c in rows.columns}
    useful = {name: g for name, g in groups.items() if 1 < len(set(g)) <= MOST_GROUPS}
    if not useful:
        raise MetadataRefused(
            "No column tells groups apart: each has one value, or a value for nearly every image."
        )
    return useful


def _keys(files: pd.Series, names: Sequence[str]) -> list[str]:
    """By whole paths; by their last parts where no whole path is known and these differ."""
    last = [name.rsplit("/", 1)[-1] for name in names]
    if not files.isin(names).any() and len(set(last)) == len(last):
        return last
    return list(names)


def _grouped(column: pd.Series) -> np.ndarray:
    """(n,) str of a column whose missing values are NaN."""
    numbers = pd.to_numeric(column, errors="coerce").where(np.isfinite)
    all_numbers = (numbers.notna() == column.notna()).all()
    if all_numbers and numbers.nunique() > MOST_GROUPS // 2:
        column = pd.qcut(numbers, _PARTS, duplicates="drop").astype(object)
    return column.where(column.notna(), _MISSING).to_numpy().astype(str)


def _some(values: Sequence[str] | pd.Series | pd.Index) -> str:
    return ", ".join(list(dict.fromkeys(values))[:5])
