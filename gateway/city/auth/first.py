"""The first administrator: a link to be used once, for whoever runs this server. There is no default password."""

import logging
import socket
import sys
from pathlib import Path

from gateway.city.auth.people import People
from gateway.city.database.engine import private
from gateway.config import ServerSection

_LOG = logging.getLogger(__name__)


def address(server: ServerSection, link: str) -> str:
    """Where a link is used. Its secret is behind the #, which a browser sends to nobody."""
    scheme = "http" if server.tls_cert is None else "https"
    host = socket.gethostname() if server.host in {"0.0.0.0", "::"} else server.host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.port}/#link={link}"


def announce(people: People, server: ServerSection, path: Path) -> None:
    """Puts the first administrator's link into a file of mode 0600, and on the terminal if there is one.

    Once someone has a password the file is taken away.

    Args:
        people: Who is known.
        server: Where the view listens.
        path: The file.

    Raises:
        DatabaseError: If the database does not answer.
        OSError: If the file cannot be written.
    """
    link = people.first_link()
    if link is None:
        path.unlink(missing_ok=True)
        return
    private(path, f"{address(server, link)}\n")
    where = address(server, link) if sys.stderr.isatty() else f"the link in {path}"
    _LOG.info("nobody has a password yet; to become the administrator, open %s", where)
