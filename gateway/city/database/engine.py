"""The database: SQLite beside the readings by default, PostgreSQL by URL.

SQLAlchemy is used synchronously, in the threads in which FastAPI runs plain functions: transactions are short, and one
way of writing them serves the server and the command line. A transaction that has returned is on disk (SQLite: WAL,
synchronous=FULL).
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alembic.command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from gateway.config import CityConfig, ConfigError

_BUSY_MS = 10_000
_UPGRADE_LOCK = 0x63697479  # "city": two city views that start at once on one PostgreSQL take turns


class DatabaseError(Exception):
    """The database cannot be used; the message says why and what to do."""


class Database:
    """Transactions over the tables of :mod:`gateway.city.database.tables`.

    Args:
        config: The configuration of the city view.

    Raises:
        ConfigError: If the database's URL is not one of PostgreSQL.
    """

    def __init__(self, config: CityConfig) -> None:
        self.path = config.database.path or config.store.path.with_name("operations.db")
        """SQLite's file; also where the first administrator's link is put."""
        url = config.database.url
        self._url = URL.create("sqlite", database=str(self.path)) if url is None else _postgres(url.get_secret_value())
        self._engine: Engine | None = None

    def open(self) -> None:
        """Connects and brings the schema up to date.

        Raises:
            DatabaseError: If either fails.
        """
        try:
            self._engine = self._connect()
            logging.getLogger("alembic").setLevel(logging.WARNING)
            with self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
                scripts = Config(attributes={"connection": connection})
                scripts.set_main_option("script_location", "gateway.city.database:migrations")
                alembic.command.upgrade(scripts, "head")
        except CommandError as error:
            msg = (
                f"database: {self._name} was made by a newer citygate ({error}); install that one, or another database"
            )
            raise DatabaseError(msg) from error
        except ModuleNotFoundError as error:
            msg = "database.url: PostgreSQL needs the extra: pip install 'citygate[postgres]'"
            raise DatabaseError(msg) from error
        except (SQLAlchemyError, OSError) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Closes all connections."""
        if self._engine is not None:
            self._engine.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database and changes nothing.

        Raises:
            DatabaseError: If the database does not answer.
        """
        with self._session(writes=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at its end, or changes nothing if an exception leaves it.

        Raises:
            DatabaseError: If the database does not answer.
        """
        with self._session(writes=True) as session:
            yield session
            session.commit()

    @contextlib.contextmanager
    def _session(self, *, writes: bool) -> Iterator[Session]:
        if self._engine is None:
            msg = "database: it is not open"
            raise DatabaseError(msg)
        try:
            with Session(self._engine.execution_options(writes=writes), expire_on_commit=False) as session:
                yield session
        except SQLAlchemyError as error:
            raise self._failure(error) from error

    def _connect(self) -> Engine:
        if self._url.drivername != "sqlite":
            return create_engine(self._url, pool_pre_ping=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        engine = create_engine(self._url)
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
        return engine

    @property
    def _name(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def _failure(self, error: Exception) -> DatabaseError:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        return DatabaseError(f"database: {self._name} cannot be used: {reason}; check that it is there and not full")


def _postgres(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        url = None
    if url is None or url.drivername not in {"postgresql", "postgres"}:
        msg = "database.url: not an address such as postgresql://citygate:PASSWORD@db.example/citygate"
        raise ConfigError(msg)
    return url.set(drivername="postgresql+psycopg")


def _set_up(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", f"busy_timeout = {_BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # who means to write takes the lock at once, so that it never has to give up what it has read
    writes = connection.get_execution_options().get("writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def private(path: Path, text: str) -> None:
    """Writes a file that only this user can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
