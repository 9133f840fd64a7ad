"""Which points of a refused request are bad, in few further requests.

A server that refuses a request refuses all of it, and names at best one of the points. So parts are offered to it. When
the first half of a refused part is accepted, the bad point is in the second, which is not offered whole. When the first
half is refused, nothing is known of the second: it goes back to the rest. The rest is offered in groups, twice as large
after each that is accepted and half as large after each bad point, so that the size follows how many bad ones there
are. No point is called bad that was not refused alone.

Of n points with one bad, it takes log2(n) + 2 requests; with d bad ones, about d · (log2(n/d) + 2).
"""

import random
from typing import NamedTuple


class Line(NamedTuple):
    """One point: the id of its row in the spool, its number in the row, its text."""

    row: int
    number: int
    text: bytes


class Sift:
    """The search, without the sending: offer, hear, offer again.

    Args:
        lines: The points of the request.
        refused: Whether the server has refused them together; otherwise they were only too large for it.

    Attributes:
        bad: The points that were refused alone, with the server's reasons.
        stuck: The points that could not be sent alone, though the server is there.
        judged: Whether a point was accepted, so that a refusal means the points.
    """

    def __init__(self, lines: list[Line], *, refused: bool) -> None:
        self.bad: list[tuple[Line, str]] = []
        self.stuck: list[Line] = []
        self.judged = False
        self._suspects = list(lines) if refused else []  # one of them at least is bad
        self._rest = [] if refused else list(lines)
        self._group = 2 * len(lines)
        self._most = len(lines) if refused else max(len(lines) // 2, 1)

    def offer(self) -> list[Line]:
        """What to send next; nothing when all is known."""
        if self._suspects:
            return self._suspects[: max(min(len(self._suspects) // 2, self._most), 1)]
        return self._rest[: min(self._group, self._most)]

    def some(self, number: int) -> list[Line]:
        """Points whose fate is not yet known, at random."""
        left = self._suspects + self._rest
        return random.sample(left, min(number, len(left)))

    def accepted(self) -> None:
        """The server has taken the offer."""
        self.judged = True
        size = len(self.offer())
        if self._suspects:
            self._suspects = self._suspects[size:]
        else:
            self._rest = self._rest[size:]
            self._group *= 2

    def refused(self, reason: str | None) -> None:
        """The server has refused the offer.

        Args:
            reason: Its own; None if it did not judge but fails at it time and again.
        """
        offer = self.offer()
        source, size = self._suspects or self._rest, len(offer)
        if self._suspects:
            self._rest = source[size:] + self._rest
        else:
            self._rest = source[size:]
        self._suspects = offer
        if size == 1:
            self._suspects = []
            self._group = max(self._group // 2, 1)
            if reason is None:
                self.stuck += offer
            else:
                self.bad.append((offer[0], reason))

    def too_large(self) -> None:
        """The offer, of more than one point, says nothing about the points: offer less."""
        self._most = max(len(self.offer()) // 2, 1)


__all__ = ["Line", "Sift"]
