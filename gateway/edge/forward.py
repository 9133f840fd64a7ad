"""From the spool to a server: gzip'd line protocol, and whatever the server answers, no valid point is lost.

A row leaves the spool when its output's server has said 204. Until then a kill, a lost answer or an outage only means
that it is sent again; the same points written twice are the same points.

Two lanes send beside each other, each on a connection of its own. The fresh lane takes what arrived since its last
request, and after an outage the newest. The backlog lane takes what that left behind, oldest first, no faster than
``backlog_rate``.

======================  ============================================================================================
answer                  what follows
======================  ============================================================================================
204, empty 2xx          delivered
400, 422                sifted until the bad points are alone; those go to the dead letters with the server's reason
413                     sent in smaller parts, and smaller requests from then on
401, 403, 404, 3xx      kept; tried again slowly, with a message that says what to mend; 401 and 403 first read the
                        files of token and password again
429, 503                kept; both lanes wait for ``Retry-After``
no answer in time       kept; smaller requests for a while, for a link that is slow
anything else           kept; tried again with a jittered delay: resets, HTML, half an answer
======================  ============================================================================================

While the server is away, only a small request now and then asks for it, one for both lanes, so that the newest readings
follow within two flush intervals of its return.

A server that refuses everything is no judge: a point is called bad only by a server that takes another one. A point at
which a server fails time and again, though it takes others, is not called bad: its row waits, and the others go on.
"""

import asyncio
import gzip
import logging
import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from gateway.config import OutputConfig
from gateway.edge.servers import Answer, Server
from gateway.edge.sift import Line, Sift
from gateway.edge.spool import Refusal, Row, Spool, SpoolError, gzip_of

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_SLOW_DELAYS = (5.0, 60.0)  # for what only a person can mend
_LEAST_DELAY = 0.1
_STUCK_DELAY = 300.0  # for a row with a point at which the server fails, times the number of such rows
_REMIND = 60.0  # s between two log messages about the same trouble
_LEAST_REQUEST = 16384  # bytes of line protocol below which requests do not shrink, and most of a probe
_LATE_SHARE, _QUICK_SHARE = 1 / 2, 1 / 8  # of the timeout: requests that take longer shrink, quicker ones grow
_COMPRESSION = 8  # line protocol to gzip, about
_STRIKES = 3  # failures in a row, at a server that takes others, after which a row is sifted
_TRIES_FOR_A_WITNESS = 32
_WITNESS_TURN = 3

_KEYS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

_log = logging.getLogger(__name__)


class _Budget:
    """Bytes a second. A request may overdraw; the next one waits until that is paid."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = -math.inf  # monotonic s

    async def spend(self, size: int) -> None:
        now = time.monotonic()
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
        self._free_at = max(self._free_at, time.monotonic()) + size / self._rate


class _Lane:
    """What differs between the lanes.

    Attributes:
        budget: What it may send, or None.
        strikes: Requests in a row at which the server failed.
    """

    def __init__(self, budget: _Budget | None = None) -> None:
        self.budget = budget
        self.strikes = 0


class Forwarder:
    """Sends what an output has yet to get.

    Args:
        spool: Where the rows are.
        output: The server; its name is the name of its position in the spool.
    """

    def __init__(self, spool: Spool, output: OutputConfig) -> None:
        self._spool = spool
        self._output = output
        self._server = Server(output)
        self._arrival = spool.arrival()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._fresh, self._backlog = _Lane(), _Lane(_Budget(output.backlog_rate))
        self._taken: set[int] = set()  # rows in a lane's hands
        self._stuck: set[int] = set()  # rows that wait
        self._mark = 0  # the newest row that the fresh lane is done with
        self._old = asyncio.Event()  # there may be something for the backlog lane
        self._parked: tuple[list[Row], Sift] | None = None  # what takes the fresh lane too long
        self._limit = self._ceiling = output.batch_bytes
        self._sent = 0  # bytes of line protocol
        self._seen = 0  # bytes of line protocol that had arrived at the fresh lane's last look
        self._witness: Row | None = None  # that the server has taken
        self._open = asyncio.Event()  # the server answers
        self._open.set()
        self._door = asyncio.Lock()
        self._outages = 0
        self._ask_at = 0.0  # monotonic s
        self._probes = 0  # in a row in vain
        self._failures = 0
        self._trouble: str | None = None
        self._last_log = -math.inf
        self._last_success: int | None = None
        self._last_error: str | None = None

    async def run(self) -> None:
        """Sends for ever; ends by cancellation, which loses nothing."""
        try:
            async with asyncio.TaskGroup() as lanes:
                lanes.create_task(self._send_fresh())
                lanes.create_task(self._send_backlog())
        finally:
            await self._server.close()

    async def flush(self, timeout: float) -> bool:  # noqa: ASYNC109 - the caller's stop has one
        """Sends everything at once, while ``run`` is running.

        Args:
            timeout: Longest wait, s.

        Returns:
            Whether the output has everything.
        """
        self._idle.clear()
        self._hurry.set()
        self._arrival.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._spool.backlog(self._output.name).rows:
                    await self._idle.wait()
                    self._idle.clear()
        self._hurry.clear()
        return not self._spool.backlog(self._output.name).rows

    def status(self) -> dict[str, Any]:
        """How it goes, for people and for the health endpoint.

        Returns:
            ``name``, ``url``, ``state`` (``ok`` | ``retrying``), ``last_success`` (ms UTC or None), ``last_error``
            (text or None; kept after recovery), ``backlog_rows``, ``backlog_bytes`` (line protocol, uncompressed).
        """
        backlog = self._spool.backlog(self._output.name)
        return {
            "name": self._output.name,
            "url": self._output.url,
            "state": "ok" if self._trouble is None else "retrying",
            "last_success": self._last_success,
            "last_error": self._last_error,
            "backlog_rows": backlog.rows,
            "backlog_bytes": backlog.bytes,
        }

    # The lanes

    async def _send_fresh(self) -> None:
        outages = -1  # the start is as the end of an outage
        while True:
            try:
                if outages == self._outages:
                    await self._gather()
                await self._opened()
                newest = outages != self._outages
                outages = self._outages
                await self._send_arrived(newest=newest)
            except SpoolError as error:
                outages = -1
                self._old.set()
                await self._pause(str(error))

    async def _gather(self) -> None:
        """Waits for a row, and then for more: until the interval is over, or a request is full."""
        await self._arrival.wait()
        deadline = asyncio.get_running_loop().time() + self._output.flush_interval
        self._arrival.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while not self._hurry.is_set() and self._arrived() - self._seen < self._limit:
                    await self._arrival.wait()
                    self._arrival.clear()

    async def _send_arrived(self, *, newest: bool) -> None:
        """Sends the rows beyond the mark; after an outage a request of the newest, wherever they are."""
        self._seen = self._arrived()
        top, requests, sent = self._mark, 0, True
        wanted = -1 if newest else self._mark
        while sent and not (newest and requests):
            rows = await self._take(self._fresh, self._limit, lambda row: row.id > wanted, newest_first=True)
            if not rows:
                break
            if requests and rows[0].id > top and sum(row.raw_bytes for row in rows) < self._limit / 2:
                self._taken.difference_update(row.id for row in rows)  # these came meanwhile, for the next interval
                break
            top = max(top, rows[-1].id)
            requests += 1
            sent = await self._deliver(rows, self._fresh)
        self._mark = top
        if newest or requests > 1 or not sent:
            self._old.set()

    async def _send_backlog(self) -> None:
        while True:
            try:
                await self._old.wait()
                await self._opened()
                self._old.clear()
                if self._parked:
                    (rows, sift), self._parked = self._parked, None
                    self._old.set()
                    await self._deliver(rows, self._backlog, sift)
                    continue
                most = min(self._limit, _COMPRESSION * self._output.backlog_rate)
                rows = await self._take(self._backlog, most, lambda row: row.id <= self._mark)
                if rows:
                    self._old.set()
                    await self._deliver(rows, self._backlog)
            except SpoolError as error:
                self._old.set()
                await self._pause(str(error))

    async def _take(
        self, lane: _Lane, limit: int, wanted: Callable[[Row], bool], *, newest_first: bool = False
    ) -> list[Row]:
        """Rows that no lane has; fewer after each failure, so that one at which the server fails is soon alone."""
        rows = await self._spool.next_rows(
            self._output.name,
            max(limit >> lane.strikes, 1),
            newest_first=newest_first,
            without=self._taken | self._stuck,
        )
        rows = [row for row in rows if row.id not in self._taken and wanted(row)]  # the other lane may have been faster
        self._taken.update(row.id for row in rows)
        return rows

    def _arrived(self) -> int:
        """Bytes of line protocol that the spool ever had for this output, but for those that were evicted."""
        return self._spool.backlog(self._output.name).bytes + self._sent

    # Rows

    async def _deliver(self, rows: list[Row], lane: _Lane, sift: Sift | None = None) -> bool:
        """Sends rows that were taken, or goes on sifting them.

        Returns:
            Whether they are dealt with; otherwise they are to be taken again when the server is back.
        """
        try:
            if sift is None:
                answer = await self._send(rows, lane)
                stubborn = len(rows) == 1 and (answer.late or lane.strikes >= _STRIKES)
                if answer.accepted or not (answer.judged or stubborn):
                    return answer.accepted
                lane.strikes = 0
                lines = await asyncio.to_thread(
                    lambda: [Line(row.id, i, text) for row in rows for i, text in enumerate(row.text())]
                )
                sift = Sift(lines, refused=not (answer.too_large or answer.late))
            return await self._sift(rows, lane, sift)
        finally:
            if self._parked is None or self._parked[0] is not rows:
                self._taken.difference_update(row.id for row in rows)

    async def _send(self, rows: list[Row], lane: _Lane) -> Answer:
        body, size = gzip_of(rows), sum(row.raw_bytes for row in rows)
        if lane.budget:
            await lane.budget.spend(len(body))
            await self._opened()
        began = time.monotonic()
        answer = await self._post(body)
        share = (time.monotonic() - began) / self._output.timeout
        smaller = max(min(self._limit, size) // 2, _LEAST_REQUEST)
        if answer.too_large:
            self._limit = self._ceiling = smaller
        elif answer.late or (answer.accepted and share > _LATE_SHARE):
            self._limit = smaller
        elif answer.accepted and share < _QUICK_SHARE:
            self._limit = min(2 * self._limit, self._ceiling)
        if answer.accepted:
            self._witness = rows[-1]
            lane.strikes = 0
            await self._delivered(rows, [])
        elif not answer.judged:
            lane.strikes += 1
        return answer

    async def _sift(self, rows: list[Row], lane: _Lane, sift: Sift) -> bool:
        """Sends the points in parts until those that are refused are alone."""
        deadline = time.monotonic() + 2 * self._output.flush_interval
        failed = 0
        while lines := sift.offer():
            if lane is self._fresh and self._parked is None and time.monotonic() > deadline:
                self._parked = rows, sift
                self._old.set()
                return True
            body = await asyncio.to_thread(_packed, lines)
            if lane.budget:
                await lane.budget.spend(len(body))
            await self._opened()
            answer = await self._post(body)
            alone = len(lines) == 1
            if answer.accepted:
                sift.accepted()
            elif answer.refused or (answer.too_large and alone):
                if alone and not sift.judged and not await self._takes_any(sift.some(_TRIES_FOR_A_WITNESS)):
                    trouble = f"refuses every point, so the fault may be the server's: {answer.reason}"
                    self._shut(trouble, self._delay(slow=True))
                    return False
                sift.judged = sift.judged or alone
                sift.refused(answer.reason)
            elif answer.too_large or (answer.late and not alone):
                sift.too_large()
            else:
                failed += 1
                if failed < (2 * _STRIKES if alone else 2):
                    continue
                sift.refused(None)
            failed = 0
        await self._sifted(rows, sift)
        return True

    async def _sifted(self, rows: list[Row], sift: Sift) -> None:
        for line, reason in sift.bad[:3]:
            _log.warning(
                "%s: a point is refused and goes to the dead letters: %s",
                self._output.name,
                reason,
                extra={"row": line.row},
            )
        stuck = {line.row for line in sift.stuck}
        if stuck:
            self._stuck |= stuck
            asyncio.get_running_loop().call_later(_STUCK_DELAY * len(self._stuck), self._unstick, stuck)
            _log.error(
                "%s: the server fails at %d points, which wait; the others go on", self._output.name, len(sift.stuck)
            )
        await self._delivered(
            [row for row in rows if row.id not in stuck],
            [Refusal(*line, reason) for line, reason in sift.bad if line.row not in stuck],
        )

    def _unstick(self, rows: set[int]) -> None:
        self._stuck -= rows
        self._old.set()

    async def _takes_any(self, offers: list[Line]) -> bool:
        """Whether the server takes a point that it took before, or any of these."""
        if self._witness:
            offers = [Line(0, 0, self._witness.text()[0]), *offers]
        for offer in offers:
            await self._opened()
            if (await self._post(_packed([offer]))).accepted:
                return True
        return False

    async def _delivered(self, rows: list[Row], refused: list[Refusal]) -> None:
        await self._spool.delivered(self._output.name, [row.id for row in rows], refused)
        self._sent += sum(row.raw_bytes for row in rows)
        if not self._spool.backlog(self._output.name).rows:
            self._idle.set()

    # The door, which is shut while the server is away

    async def _opened(self) -> None:
        """Returns when the server may be asked; whoever waits first asks for it."""
        while not self._open.is_set():
            async with self._door:
                if self._open.is_set():
                    return
                await asyncio.sleep(max(self._ask_at - time.monotonic(), 0))
                await self._probe()

    async def _probe(self) -> None:
        """Asks with the newest row if it is small; by turns with other points, should the server fail at that one."""
        turn = self._probes % 4
        rows = await self._spool.next_rows(self._output.name, 1, newest_first=turn != 1)
        if self._witness and (turn == _WITNESS_TURN or not rows):
            rows = [self._witness]
        if not rows:
            self._open.set()  # nothing is there to ask for
            return
        whole = turn % 2 == 0 and rows[0].raw_bytes <= _LEAST_REQUEST
        body = gzip_of(rows) if whole else gzip.compress(random.choice(rows[0].text()), 1)  # noqa: S311
        answer = await self._post(body)
        if not answer.judged:
            self._probes += 1
            return
        self._probes = 0
        if time.monotonic() >= self._ask_at:  # else the other lane, still under way, was asked to wait
            self._open.set()
        if answer.accepted and whole:
            self._witness = rows[0]
            await self._delivered(rows, [])

    async def _post(self, body: bytes) -> Answer:
        answer = await self._server.post(body)
        if answer.accepted:
            self._recovered()
        elif not answer.judged:
            delay = max(self._delay(slow=answer.slow), answer.retry_after or 0.0)
            if answer.status in _KEYS and await self._server.reread():
                delay = 0.0
            self._shut(self._explained(answer), delay)
        return answer

    def _delay(self, *, slow: bool = False) -> float:
        self._failures += 1
        first, longest = _SLOW_DELAYS if slow else (_FIRST_DELAY, min(self._output.flush_interval, _LONGEST_DELAY))
        delay = min(first * 2.0 ** min(self._failures - 1, 16), longest)
        return max(delay, _LEAST_DELAY) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def _shut(self, trouble: str, delay: float) -> None:
        if self._open.is_set():
            self._open.clear()
            self._outages += 1
        self._ask_at = max(self._ask_at, time.monotonic() + delay)
        self._tell(trouble, delay)

    async def _pause(self, trouble: str) -> None:
        delay = self._delay()
        self._tell(trouble, delay)
        await asyncio.sleep(delay)

    def _tell(self, trouble: str, delay: float) -> None:
        now = time.monotonic()
        self._last_error = trouble
        if trouble != self._trouble or now - self._last_log >= _REMIND:
            self._last_log = now
            _log.error("%s: %s; trying again in %.1f s, nothing is lost", self._output.name, trouble, delay)
        self._trouble = trouble

    def _recovered(self) -> None:
        self._last_success = time.time_ns() // 1_000_000
        if time.monotonic() < self._ask_at:
            return
        self._failures = 0
        self._open.set()
        if self._trouble is not None:
            _log.info("%s: takes points again", self._output.name)
        self._trouble = None

    def _explained(self, answer: Answer) -> str:
        output = self._output
        first = output.type == "influxdb1"
        match answer.status:
            case HTTPStatus.UNAUTHORIZED:
                keys = "'username' and 'password_file'" if first else "'token_file'"
                hint = f"the server does not know these credentials: check {keys}"
            case HTTPStatus.FORBIDDEN:
                what = f"the database '{output.database}'" if first else f"the bucket '{output.bucket}'"
                hint = f"no permission to write to {what}: give it to this user or token, or set another one"
            case HTTPStatus.NOT_FOUND if first:
                hint = (
                    f"is there a database '{output.database}'? Create it (CREATE DATABASE \"{output.database}\"), "
                    "or mend 'database' or 'url'"
                )
            case HTTPStatus.NOT_FOUND:
                hint = (
                    f"is there a bucket '{output.bucket}' in the organisation '{output.org}'? Create it "
                    f"(influx bucket create --name {output.bucket} --org {output.org}), "
                    "or mend 'bucket', 'org' or 'url'"
                )
            case _ if answer.redirected:
                hint = (
                    "redirects are not followed, since they would take the credentials along: set 'url' to the target"
                )
            case status if answer.html or HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
                return f"{output.url} answers {status} but not as InfluxDB does: is a proxy or portal between?"
            case 0 if answer.ours:
                return f"[[output]] '{output.name}': {answer.reason}"
            case 0:
                return f"{output.url} does not answer: {answer.reason}"
            case status:
                return f"{output.url} answers {status}: {answer.reason}"
        return f"{output.url} answers {answer.status} ({answer.reason}): [[output]] '{output.name}': {hint}"


def _packed(lines: list[Line]) -> bytes:
    return gzip.compress(b"\n".join(line.text for line in lines), 1)


__all__ = ["Forwarder"]
