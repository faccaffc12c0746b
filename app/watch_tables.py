"""The tables of watched streams, and the error for when they cannot be used."""

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from app.database import Kind, number, part_of
from app.inbox_tables import LARGEST_PICTURE

LONGEST_NAME = 64
_LARGEST_STATE = 2**30  # some databases have a type for small ones and must be told


class StoreError(Exception):
    """A store that cannot be read or written; the message says why and what to do."""


METADATA = MetaData()
WATCH = Kind("store of watched streams", "KINDRED_WATCH", StoreError, METADATA, version=1)

STREAMS = Table(
    "streams",
    METADATA,
    number(),
    Column("workspace", String(400), nullable=False),
    Column("name", String(LONGEST_NAME), nullable=False),
    Column("created", String(32), nullable=False),  # UTC, ISO 8601
    Column("settings", Text, nullable=False),  # JSON
    Column("calibration", LargeBinary(_LARGEST_STATE), nullable=False),  # float64, low byte first
    UniqueConstraint("workspace", "name"),
    sqlite_autoincrement=True,
)
# The log. It alone determines the monitor; what was decided is kept to check replays by.
EVENTS = Table(
    "events",
    METADATA,
    number(),
    part_of("stream_id", "streams"),
    Column("kind", String(8), nullable=False),  # see `EventKind`
    Column("item", Integer),  # of an arrival or an answer
    Column("created", String(32), nullable=False),
    # Of an arrival; the name and the source of a refused file too.
    Column("name", Text),
    Column("source", String(64)),  # a digest
    Column("sha256", String(64)),
    Column("score", Double),
    Column("p_value", Double),
    Column("predicted", Integer),
    Column("threshold", Double),
    Column("flagged", Boolean),
    Column("asked", Boolean),
    Column("probability", Double),
    # Of an answer.
    Column("answer", Integer),
    Column("by", Text),
    Column("reason", Text),  # of a refusal
    # Nothing arrives, or is answered, twice, whatever a program does.
    UniqueConstraint("stream_id", "kind", "item"),
    UniqueConstraint("stream_id", "source"),
    Index("events_of_stream", "stream_id", "id"),
    sqlite_autoincrement=True,
)
PICTURES = Table(
    "pictures",
    METADATA,
    part_of("stream_id", "streams"),
    Column("sha256", String(64), nullable=False),
    Column("webp", LargeBinary(LARGEST_PICTURE), nullable=False),
    PrimaryKeyConstraint("stream_id", "sha256"),
)
# Only to open a long stream at once: without it everything is replayed.
SNAPSHOTS = Table(
    "snapshots",
    METADATA,
    part_of("stream_id", "streams"),
    Column("event_id", Integer, nullable=False),
    Column("state", LargeBinary(_LARGEST_STATE), nullable=False),  # safetensors
    PrimaryKeyConstraint("stream_id"),
)
DELIVERIES = Table(
    "deliveries",
    METADATA,
    part_of("stream_id", "streams"),
    Column("alarm", Integer, nullable=False),  # its place among those of the stream, from 0
    Column("channel", String(64), nullable=False),  # a digest: addresses may hold secrets
    Column("claimed", Double, nullable=False),  # by whom sends it, seconds since 1970
    Column("sent", String(32), nullable=False),  # "" until it is
    PrimaryKeyConstraint("stream_id", "alarm", "channel"),
)
