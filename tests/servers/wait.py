"""Waiting for conditions, never for luck."""

import asyncio
import socket
from collections.abc import Callable


def listening(port: int) -> bool:
    """Whether a port of loopback accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns when the condition holds; fails when it does not within the given time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of other programs set no Event
            await asyncio.sleep(0.01)
