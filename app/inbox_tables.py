"""The inbox's tables, and the error for when they cannot be used."""

from typing import NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    select,
)

from app.database import Kind, insert_row, number, part_of

LARGEST_PICTURE = 2**20  # some databases have a type for small ones and must be told


class InboxError(Exception):
    """An inbox that cannot be read or written; the message says why and what to do."""


METADATA = MetaData()
INBOX = Kind("inbox", "KINDRED_INBOX", InboxError, METADATA, version=1)

WORKSPACES = Table(
    "workspaces",
    METADATA,
    number(),
    Column("identity", String(400), nullable=False, unique=True),
    Column("dimensions", Integer, nullable=False),  # of the features
    Column("stages", Text, nullable=False),  # channels of each, with commas between
    sqlite_autoincrement=True,
)
PASSES = Table(
    "passes",
    METADATA,
    number(),
    part_of("workspace_id", "workspaces"),
    Column("given_id", String(200), nullable=False),
    Column("created", String(32), nullable=False),  # UTC, ISO 8601: sorts as text
    Column("level", Double, nullable=False),
    Column("inspected", Integer, nullable=False),
    UniqueConstraint("workspace_id", "given_id"),
    sqlite_autoincrement=True,
)
PICTURES = Table(
    "pictures",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("webp", LargeBinary(LARGEST_PICTURE), nullable=False),
)
ITEMS = Table(
    "items",
    METADATA,
    number(),
    part_of("pass_id", "passes"),
    Column("position", Integer, nullable=False),  # in the pass, from 0
    Column("sha256", ForeignKey(PICTURES.c.sha256), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("p_value", Double, nullable=False),
    Column("predicted", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("features", LargeBinary, nullable=False),
    Column("means", LargeBinary, nullable=False),  # of all stages, end to end
    UniqueConstraint("pass_id", "position"),
    Index("items_state", "state", "pass_id"),  # to count without reading the rows
    sqlite_autoincrement=True,
)
NEW_CLASSES = Table(
    "new_classes",
    METADATA,
    number(),
    part_of("workspace_id", "workspaces"),
    Column("name", Text, nullable=False),
    Column("created", String(32), nullable=False),
    Column("undone", String(32), nullable=False),  # "" while it is in force
    sqlite_autoincrement=True,
)
# Members keep their features: a class outlives the items that taught it.
MEMBERS = Table(
    "members",
    METADATA,
    part_of("class_id", "new_classes"),
    Column("sha256", String(64), nullable=False, index=True),
    Column("features", LargeBinary, nullable=False),
    Column("means", LargeBinary, nullable=False),
    PrimaryKeyConstraint("class_id", "sha256"),
)


class Known(NamedTuple):
    """A workspace's row: D features, and the channels of the stages with commas between."""

    id: int
    dimensions: int
    stages: str

    @property
    def widths(self) -> tuple[int, str]:
        """As `Flagged.widths` says them."""
        return self.dimensions, self.stages


def known(connection: Connection, workspace: str) -> Known:
    """The row of a workspace; of one that nothing was added to, one that nothing belongs to."""
    row = connection.execute(select(WORKSPACES).where(WORKSPACES.c.identity == workspace)).first()
    return Known(row.id, row.dimensions, row.stages) if row else Known(0, 0, "")


def known_or_new(connection: Connection, workspace: str, dimensions: int, stages: str) -> Known:
    """The row of a workspace, made if there is none.

    Raises:
        ValueError: when its features or stages have had other widths so far.
    """
    found = known(connection, workspace)
    if not found.id:
        number = insert_row(
            connection, WORKSPACES, identity=workspace, dimensions=dimensions, stages=stages
        )
        return Known(number, dimensions, stages)
    if found.widths != (dimensions, stages):
        raise ValueError(
            f"{dimensions} features and stages of {stages or 'no'} channels, where {workspace} "
            f"has had {found.dimensions} and {found.stages or 'no'}."
        )
    return found
