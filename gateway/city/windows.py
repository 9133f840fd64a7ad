"""Maintenance windows that people declare in the page or by the API; those of the file of rules stand beside them."""

from collections.abc import Sequence

from sqlalchemy import select

from gateway.city.auth.people import now_ms, record
from gateway.city.auth.rights import Caller
from gateway.city.database.engine import Database
from gateway.city.database.tables import MaintenanceWindow
from gateway.city.maintenance import Maintenance, Work
from gateway.city.problems import ProblemError

_MOST = 1000  # that are in force or to come


class Windows:
    """The windows.

    Args:
        database: The database.
        maintenance: Is told which there are.
    """

    def __init__(self, database: Database, maintenance: Maintenance) -> None:
        self._database = database
        self._maintenance = maintenance

    def recall(self) -> Sequence[MaintenanceWindow]:
        """The windows in force or to come, in the order in which they end; they hold from now on.

        Raises:
            DatabaseError: If the database does not answer.
        """
        wanted = select(MaintenanceWindow).where(MaintenanceWindow.until > now_ms()).order_by(MaintenanceWindow.until)
        with self._database.read() as transaction:
            found = list(transaction.scalars(wanted.limit(_MOST)))
        self._maintenance.windows = [
            Work(item.site, item.sensor, item.kind, item.since, item.until, item.id) for item in found
        ]
        return found

    def add(self, caller: Caller, window: MaintenanceWindow) -> MaintenanceWindow:
        """Declares a window.

        Raises:
            ProblemError: 409 if there are too many.
        """
        if len(self.recall()) >= _MOST:
            raise ProblemError(409, f"{_MOST} windows are in force or to come; end some first.")
        window.who = caller.name
        with self._database.write() as transaction:
            transaction.add(window)
            transaction.flush()
            about = {name: getattr(window, name) for name in ("site", "sensor", "kind", "since", "until", "note")}
            record(transaction, caller.name, caller.address, "declared", f"maintenance {window.id}", **about)
        self.recall()
        return window

    def end(self, caller: Caller, number: int) -> None:
        """Ends a window now.

        Raises:
            ProblemError: 404 if none of this number is in force or to come.
        """
        now = now_ms()
        with self._database.write() as transaction:
            window = transaction.get(MaintenanceWindow, number)
            if window is None or window.until <= now:
                raise ProblemError(404, f"No maintenance {number} is in force or to come.")
            window.until = now
            record(transaction, caller.name, caller.address, "ended", f"maintenance {number}")
        self.recall()
