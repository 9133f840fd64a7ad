"""``citygate user``: who may sign in, and links for them, on the machine of the city view."""

import contextlib
import json
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from gateway.city.auth import first
from gateway.city.auth.people import People
from gateway.city.auth.rights import Caller, Role
from gateway.city.database.engine import Database
from gateway.city.problems import ProblemError
from gateway.config import CityConfig


class UserError(Exception):
    """What was asked for cannot be done; the message says why."""


@contextlib.contextmanager
def _people(config: CityConfig) -> Iterator[People]:
    database = Database(config)
    database.open()
    try:
        yield People(database)
    finally:
        database.close()


def show(config: CityConfig, *, as_json: bool) -> None:
    """Prints everyone.

    Raises:
        DatabaseError: If the database cannot be used.
    """
    with _people(config) as people:
        everyone = people.all()
    if as_json:
        rows = [
            {
                "name": person.name,
                "title": person.title,
                "role": person.role,
                "disabled": person.disabled,
                "active": person.password is not None,
            }
            for person in everyone
        ]
        print(json.dumps(rows, ensure_ascii=False, indent=2))  # noqa: T201 - for scripts
        return
    table = Table("name", "title", "role", "state", box=None)
    for person in everyone:
        state = "disabled" if person.disabled else "active" if person.password else "has no password yet"
        table.add_row(person.name, person.title, person.role, state)
    Console().print(table if everyone else "Nobody yet: the city view adds the first administrator when it starts.")


def link(config: CityConfig, name: str) -> None:
    """Prints a link by which a person chooses a password; it works once, and earlier ones no more.

    Raises:
        DatabaseError: If the database cannot be used.
        UserError: If there is no such person, or they are disabled.
    """
    with _people(config) as people:
        found = [person for person in people.all() if person.name == name]
        if not found:
            msg = f"there is no person '{name}'; see: citygate user list"
            raise UserError(msg)
        try:
            made = people.link(Caller("citygate user", Role.ADMINISTRATOR, ""), found[0].id)
        except ProblemError as error:
            raise UserError(error.detail) from error
    print(first.address(config.server, made))  # noqa: T201 - what was asked for
