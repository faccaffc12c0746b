"""A database of Kindred's: its connections, its transactions, and what can go wrong with it."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

_BUSY_S = 30
_PAUSE_S = 0.02
_VALUES_AT_ONCE = 500
_REMEDIES = {
    "SQLITE_FULL": "Make room on the disk and try again; what was there before is kept.",
    "SQLITE_READONLY": "Make it and its folder writable, or have ${variable} name another.",
    "SQLITE_CANTOPEN": "Make its folder writable, or have ${variable} name another place.",
    "SQLITE_BUSY": "Another process holds it for long; try again.",
    "SQLITE_CORRUPT": "Its file is damaged: restore a copy, or move it away to start a new one.",
    "SQLITE_NOTADB": "Its file is no {noun}, or damaged: move it away, or restore a copy.",
}
_REMEDY = "Check ${variable}, or the folder of workspaces where there is none, and try again."


# With sqlite_autoincrement the numbers of deleted rows are never given out again: a screen may
# still show the old row.
def number() -> Column[int]:
    """A table's column of ever-growing numbers."""
    return Column("id", Integer, primary_key=True)


def part_of(name: str, table: str) -> Column[int]:
    """The number of another table's row, which takes this one along when it is deleted."""
    key = ForeignKey(f"{table}.id", ondelete="CASCADE")
    return Column(name, Integer, key, nullable=False)


_SCHEMA = Table("schema_version", MetaData(), number(), Column("version", Integer, nullable=False))


def insert_row(connection: Connection, table: Table, **row: object) -> int:
    """Insert a row, and get its number."""
    key = connection.execute(insert(table).values(row)).inserted_primary_key
    assert key is not None  # a single row was inserted
    return int(key[0])


def some_at_once(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The values in parts, since databases limit how many a statement may have."""
    for start in range(0, len(values), _VALUES_AT_ONCE):
        yield values[start : start + _VALUES_AT_ONCE]


@dataclass(frozen=True)
class Kind:
    """What is kept in a database, and how to speak of it when it fails.

    Attributes:
        noun: what people call it.
        variable: of the environment, that may name another than the usual one.
        error: what everything that can go wrong becomes.
        tables: all of them.
        version: of the tables.
    """

    noun: str
    variable: str
    error: type[Exception]
    tables: MetaData
    version: int

    def open(self, url: str | URL) -> Engine:
        """Connect to a database, whose tables are made if they are not there.

        Args:
            url: as SQLAlchemy takes it; SQLite files are made if they are not there.

        Raises:
            Exception: the kind's, when it cannot be reached or made, is damaged, or of another
                version.
        """
        try:
            engine = create_engine(url)
        except (SQLAlchemyError, ImportError) as error:  # ImportError: the database's driver
            raise self.error(
                f"${self.variable} is not the URL of a database that can be opened here: {error}."
            ) from error
        with self._explained(engine.url):
            if engine.dialect.name == "sqlite":
                _prepare_sqlite(engine)
            version = _version(engine)
            if version is None:
                # Where another process is making them too, one of the two fails.
                with suppress(IntegrityError, ProgrammingError):
                    self._make_tables(engine)
                version = _version(engine)
        if version != self.version:
            raise self.error(
                f"The {self.noun} at {_shown(engine.url)} has version {version}, this Kindred "
                f"reads {self.version}. Update Kindred, or have ${self.variable} name another."
            )
        return engine

    @contextmanager
    def reading(self, engine: Engine) -> Iterator[Connection]:
        """A transaction that sees one state of the database.

        Raises:
            Exception: the kind's, when it cannot be read.
        """
        with self._explained(engine.url), engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """A transaction that happens as a whole or, after any exception, not at all.

        Those of all threads and processes take turns, so that what one has read stays true until
        it has written.

        Raises:
            Exception: the kind's, when it cannot be written.
        """
        with (
            self._explained(engine.url),
            engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            # SQLite has locked before.
            connection.execute(select(_SCHEMA.c.version).with_for_update())
            yield connection

    @contextmanager
    def undamaged(self) -> Iterator[None]:
        """Rows that make no sense are damage, too.

        Raises:
            Exception: the kind's, for a ValueError or TypeError inside.
        """
        try:
            yield
        except (ValueError, TypeError) as error:
            raise self.error(
                f"The {self.noun} is damaged: {error} {_REMEDIES['SQLITE_CORRUPT']}"
            ) from error

    @contextmanager
    def _explained(self, url: URL) -> Iterator[None]:
        """Errors of the database become one that says what to do."""
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            code = getattr(cause, "sqlite_errorname", "")
            remedy = next((r for start, r in _REMEDIES.items() if code.startswith(start)), _REMEDY)
            remedy = remedy.format(variable=self.variable, noun=self.noun)
            raise self.error(
                f"The {self.noun} at {_shown(url)} fails: {cause}. {remedy}"
            ) from error

    def _make_tables(self, engine: Engine) -> None:
        with (
            engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            _SCHEMA.create(connection, checkfirst=True)
            self.tables.create_all(connection)
            connection.execute(_SCHEMA.insert().values(id=1, version=self.version))


def _shown(url: URL) -> str:
    """A file's path, or a URL without its password."""
    return (url.database if url.get_backend_name() == "sqlite" else None) or str(url)


def _prepare_sqlite(engine: Engine) -> None:
    """Several processes may read while one writes, and a commit is on the disk."""
    database = engine.url.database
    if database and database != ":memory:" and not database.startswith("file:"):
        path = Path(database)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)  # pictures are nobody else's business

    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, _: object) -> None:
        # Python's sqlite3 would begin at the first change only, and then too late to wait.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_S * 1000}")
        _log_ahead(connection)
        for pragma in (
            "synchronous = FULL",
            "foreign_keys = ON",
            "secure_delete = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite does not wait by itself for others that switch at the same time."""
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_PAUSE_S)


def _version(engine: Engine) -> int | None:
    """What its tables are of; None where there are none."""
    with engine.begin() as connection:
        if not inspect(connection).has_table(_SCHEMA.name):
            return None
        return connection.scalar(select(_SCHEMA.c.version))
