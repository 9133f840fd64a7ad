"""What the spool does in its file, always inside a transaction that ``gateway.edge.spool`` opens and ends."""

import logging
import re
import sqlite3
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time_ns
from typing import Any

from gateway.edge.batch import DeadLetter, Entry, Held
from gateway.edge.spool_file import COLUMNS, Damaged, Space, SpoolError, code, connect, copy, found, put, whole
from gateway.edge.spool_row import Packed, Row, pack
from gateway.edge.spool_state import CLASSES, Position, State, readings_of, text_of, tidy

_RAW, _AGGREGATE, _QUARANTINE, _EVENT = range(len(CLASSES))
_ROW_OVERHEAD = 128  # columns, b-tree cell and the unused rest of the last page, bytes
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NUMBERED = ("batch", "dead", "held")
_NOT_READINGS = (b"quarantine", b"event", b"gateway")  # measurements that hold no delivered readings
_LINE_BITS = 24  # of the id of a refused point
_KEY_BYTES = 8
_BLOCK = (
    64 * _KEY_BYTES
)  # newest keys stay in the state until there are so many: a small commit writes no page for them
_TIDY = 64  # ranges of an output from which it is looked whether rows lie between them
_REPRIEVE = 15.0  # s that the oldest row of a full spool is given when a request with it is under way
_REMIND = 60.0  # s between two warnings about eviction
_DEAD_PART = 16  # dead letters take at most this part of the file system
_SALVAGED = 2**18  # bytes of rows a transaction while salvaging

# A damaged page can hold anything: what is summed up is a number in any case.
_FACTS = "class, overall, readings, coalesce(CAST(raw_bytes AS INTEGER), 0), coalesce(length(body), 0)"
_SUMS = (
    "SELECT class, overall, readings, count(*), sum(coalesce(CAST(raw_bytes AS INTEGER), 0)), "
    "sum(coalesce(length(body), 0)) FROM batch WHERE id BETWEEN ? AND ? GROUP BY 1, 2, 3"
)

_log = logging.getLogger("gateway.edge.spool")


@dataclass(slots=True, frozen=True)
class Refusal:
    """A point that a server refused for good.

    Attributes:
        row: The row's id.
        line: Number of the line in the row, from 0.
        text: The line.
        reason: The server's own reason.
    """

    row: int
    line: int
    text: bytes
    reason: str


@dataclass(slots=True)
class Dead(DeadLetter):
    """A dead letter in the spool.

    Attributes:
        id: Ascending in the order of arrival.
        output: The output whose server refused the point that is its payload; '': a message that could not be read.
    """

    id: int = 0
    output: str = ""


@dataclass(slots=True, frozen=True)
class Limits:
    """Bounds of a spool; see ``Spool``."""

    max_bytes: int
    hold: float
    evict: Sequence[str]
    keys: int
    dead_rows: int
    dead_bytes: int

    @property
    def order(self) -> list[int]:
        """Classes in the order of their eviction."""
        named = [CLASSES.index(name) for name in self.evict]
        return named + [kind for kind in range(len(CLASSES)) if kind not in named]


@dataclass(slots=True)
class _Sums:
    """What rows hold together: readings by source, and of the class raw those that are on the whole ledger."""

    rows: int = 0
    raw_bytes: int = 0
    size: int = 0
    raw: dict[str, int] = field(default_factory=dict)
    overall: dict[str, int] = field(default_factory=dict)
    quarantine: dict[str, int] = field(default_factory=dict)


class Store:
    """The tables, and the state that follows them.

    Args:
        path: The file.
        outputs: Names of the configured outputs.
        limits: The bounds.
    """

    def __init__(self, path: Path, outputs: Sequence[str], limits: Limits) -> None:
        self.path = path
        self.outputs = tuple(outputs)
        self.limits = limits
        self.state = State()
        self.keys = b""  # as they were when the file was opened, 8 bytes each
        self.broken = ""  # why the file is damaged, while it could not be replaced
        self.pressed = False  # the disk was full against the estimate, which is not believed until an append succeeds
        self._full_since: float | None = None
        self._refused = 0, 0  # sizes of the entry that did not fit last
        self._evicting = False
        self._delivering = False  # something has left the way it should since the last eviction
        self._evicted: dict[str, int] = {}  # readings of which no warning has told yet
        self._under_way: dict[str, set[int]] = {}  # output → rows given out that it may be storing now
        self._reprieved: tuple[int, float] = 0, 0.0  # a row that waits for its request, and since when
        self._warned = -_REMIND
        self._renew()
        self.space = Space(path)
        self._dead_bytes = min(limits.dead_bytes, self.space.total // _DEAD_PART)
        try:
            self._begin()
        except sqlite3.Error:
            if not self.space.give_up():  # a full disk
                raise
            self._begin()

    # Appending

    def append(self, entry: Entry) -> int:
        """See ``Spool``."""
        state = self.state
        state.changed = True
        queued, quarantined = _counted(entry, "queued"), _counted(entry, "quarantined")
        for held in entry.held:
            queued[held.source] = queued.get(held.source, 0) - held.readings
        queued = {source: number for source, number in queued.items() if number}
        if queued and (not entry.lines or min(queued.values()) < 0):
            msg = f"an entry counts queued readings that are neither in its lines nor in its held messages: {queued}"
            raise ValueError(msg)
        parts: tuple[tuple[int, bytes, dict[str, int]], ...] = (
            (_RAW, entry.lines, queued),
            (_AGGREGATE, entry.sums, {}),
            (_QUARANTINE, entry.quarantine, quarantined),
            (_EVENT, entry.events, {}),
        )
        rows = [(kind, pack(lines), readings) for kind, lines, readings in parts if lines]
        self._release(entry.released)
        size = sum(len(packed.body) + _ROW_OVERHEAD for _, packed, _ in rows)
        size += sum(len(held.payload) + _ROW_OVERHEAD for held in entry.held)
        self._make_room(size, size + sum(len(letter.payload) for letter in entry.dead))
        state.add_counts(entry.counts)
        for held in entry.held:
            self._hold(held)
        for kind, packed, readings in rows:
            self._insert(kind, packed, readings)
        self._bury((letter, "") for letter in entry.dead)
        self._remember(entry.keys)
        if entry.time is not None:
            state.time = entry.time
        return state.next_row - 1 if rows else 0

    def _insert(
        self, kind: int, packed: Packed, readings: dict[str, int], *, overall: bool = True, only: str | None = None
    ) -> None:
        """Writes a row, for all outputs or for one; what it holds must be on the ledgers already."""
        state = self.state
        row = state.next_row
        state.next_row += 1
        columns = (row, _now(), kind, int(overall), packed.lines, packed.raw_bytes, packed.raw_crc, text_of(readings))
        put(self.db, "batch", (*columns, packed.body))
        state.rows += 1
        state.size += len(packed.body) + _ROW_OVERHEAD
        if kind == _RAW and overall:
            for source, number in readings.items():
                state.account.wait(source, number)
        for name, position in state.outputs.items():
            if only not in {None, name}:
                position.add(row)
                continue
            position.rows += 1
            position.bytes += packed.raw_bytes
            if kind == _RAW:
                for source, number in readings.items():
                    position.account.wait(source, number)

    def _remember(self, keys: list[int]) -> None:
        if not keys:
            return
        state = self.state
        state.recent += struct.pack(f"<{len(keys)}Q", *keys)
        if len(state.recent) < _BLOCK:
            return
        # A block takes the place of one that is not needed any more, and so its pages.
        number = len(state.recent) // _KEY_BYTES
        blocks = [*state.blocks, (0, number)]
        total = sum(count for _, count in blocks)
        old = 0
        while total - blocks[old][1] >= self.limits.keys:
            total -= blocks[old][1]
            old += 1
        places = [place for place, _ in blocks[:old]]
        if places:
            self.db.executemany("DELETE FROM keys WHERE id = ?", [(place,) for place in places[1:]])
        place = places[0] if places else max((place for place, _ in blocks), default=0) + 1
        put(self.db, "keys", (place, state.serial + 1, state.recent))
        state.blocks = (*blocks[old:-1], (place, number))
        state.recent = b""

    # Held messages

    def _hold(self, held: Held) -> None:
        state = self.state
        columns = (held.source, held.topic, held.readings, held.boot, held.moment, held.floor, held.payload)
        put(self.db, "held", (state.next_held, *columns))
        state.next_held += 1
        state.size += len(held.payload) + _ROW_OVERHEAD
        for account in state.accounts():
            account.wait(held.source, held.readings)

    def _release(self, ids: Iterable[int]) -> None:
        """The entry counts them again: as if they had not been received before."""
        for number in ids:
            self._let_go(number, "received", -1)

    def _let_go(self, number: int, fate: str, sign: int) -> int:
        state = self.state
        query = "SELECT source, readings, length(payload) FROM held WHERE id = ?"
        message = self.db.execute(query, (number,)).fetchone()
        if message is None:
            return 0
        source, readings, size = message
        for account in state.accounts():
            account.wait(source, -readings)
            account.count(source, "queued", -readings)
            account.count(source, fate, sign * readings)
        state.size -= size + _ROW_OVERHEAD
        self.db.execute("DELETE FROM held WHERE id = ?", (number,))
        (state.held_low,) = self.db.execute("SELECT coalesce(min(id), ?) FROM held", (state.next_held,)).fetchone()
        return int(readings)

    # A full spool

    def _make_room(self, size: int, on_disk: int) -> None:
        """Evicts what must go for an entry of that size; first leaves it to the broker for a while."""
        now = monotonic()
        held_long = self._full_since is not None and now - self._full_since >= self.limits.hold
        if self._fits(size, on_disk, strictly=self.pressed and held_long):
            over = not self.pressed and (self._delivering or not self._evicting)
            if over and self._fits(*self._refused, strictly=False):  # not only something smaller
                self._full_since, self._evicting = None, False
            return
        self._refused = size, on_disk
        why = "at its size limit" if self.state.size + size > self.limits.max_bytes else "its disk is full"
        if self._full_since is None:
            self._full_since = now
        if not (self._evicting or held_long) and self.limits.hold:
            msg = (
                f"{self.path}: the spool is full ({why}). The broker keeps what comes for {self.limits.hold:g} s, then "
                "the oldest readings are evicted. Mend the outputs, free some space, or raise [spool] max_bytes"
            )
            raise SpoolError(msg)
        self._evicting, self._delivering = True, False
        self._evict(size, on_disk)
        if now - self._warned >= _REMIND:
            self._warned = now
            told = ", ".join(f"{number} of class {name}" for name, number in self._evicted.items())
            _log.warning("%s: %s; readings evicted, oldest first: %s", self.path, why, told)
            self._evicted.clear()

    def _evict(self, size: int, on_disk: int) -> None:
        strictly = self.pressed
        if self._left(on_disk, self.state.size, strictly=strictly) + self.state.size < _needed(on_disk):
            self.pressed = False
            if strictly and self._fits(size, on_disk, strictly=False):
                return  # nothing is left but to try again
            msg = f"{self.path}: the disk is full, and evicting what is in the spool would not help. Free some space"
            raise SpoolError(msg)
        for kind in self.limits.order:
            while not self._fits(size, on_disk, strictly=strictly) and self._evict_oldest(kind):
                pass
        if not self._fits(size, on_disk, strictly=strictly):
            msg = f"{self.path}: the disk is full. Free some space, or lower [spool] max_bytes"
            raise SpoolError(msg)

    def _fits(self, size: int, on_disk: int, *, strictly: bool) -> bool:
        within = self.state.size + size <= self.limits.max_bytes or not self.state.size  # one entry always may
        return within and self._left(on_disk, 0, strictly=strictly) >= _needed(on_disk)

    def _left(self, on_disk: int, more: int, *, strictly: bool) -> int:
        if strictly:
            return self.space.unused(self.db)
        return self.space.left(self.db, _needed(on_disk) + more)

    def full(self) -> None:
        """A transaction has found the disk full: gives up the ballast and copies the log, so that it begins anew."""
        self.pressed = True
        if self._full_since is None:
            self._full_since = monotonic()
        self.space.give_up()
        with suppress(sqlite3.Error):
            self.db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()

    def committed(self, *, durable: bool) -> None:
        """After a commit: what a full disk has taken is taken back, if the file must give it back for that.

        Args:
            durable: Whether more was written than notes.
        """
        if durable:
            self.pressed = False
        with suppress(OSError, sqlite3.Error):  # it is committed, whatever happens here
            if not self.space.fill():
                if self.space.is_hollow(self.db):
                    self.db.execute("VACUUM")
                # Without ballast the log must not hold pages for which the file has no room later.
                self.db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()

    def _evict_oldest(self, kind: int) -> bool:
        state = self.state
        query = "SELECT id FROM batch WHERE id >= ? AND class = ? ORDER BY id LIMIT 1"
        row = self.db.execute(query, (state.evicted[kind], kind)).fetchone()
        if row is None:
            oldest = self.db.execute("SELECT id FROM held ORDER BY id LIMIT 1").fetchone() if kind == _RAW else None
            if oldest is None:
                return False
            gone = self._let_go(oldest[0], "evicted", 1)
        else:
            self._reprieve(row[0])
            gone = self._remove(row[0], "evicted")
            state.evicted = (*state.evicted[:kind], row[0] + 1, *state.evicted[kind + 1 :])
        self._evicted[CLASSES[kind]] = self._evicted.get(CLASSES[kind], 0) + gone
        return True

    def _reprieve(self, row: int) -> None:
        """Lets a row wait for the request that carries it: what a server has stored must not be counted as evicted."""
        if not any(row in rows for rows in self._under_way.values()):
            return
        since = self._reprieved[1] if self._reprieved[0] == row else monotonic()
        self._reprieved = row, since
        if monotonic() - since < _REPRIEVE:
            msg = f"{self.path}: the spool is full, and its oldest readings are just being sent"
            raise SpoolError(msg)

    # Delivering

    def next_rows(self, output: str, max_bytes: int, *, newest_first: bool, without: Collection[int]) -> list[Row]:
        """See ``Spool``."""
        rows: list[Row] = []
        damaged = []
        total = 0
        order = "DESC" if newest_first else "ASC"
        query = f"SELECT {', '.join(COLUMNS['batch'])} FROM batch WHERE id BETWEEN ? AND ? ORDER BY id {order}"  # noqa: S608
        gaps = list(self.state.outputs[output].gaps())
        for gap in reversed(gaps) if newest_first else gaps:
            for record in self.db.execute(query, gap):
                row, _, moment, _, _, lines, raw_bytes, raw_crc, _, body = record
                if row in without:
                    continue
                if not whole("batch", record):
                    damaged.append(row)
                    continue
                if rows and total + raw_bytes > max_bytes:
                    break
                total += raw_bytes
                rows.append(Row(row, moment, lines, raw_bytes, raw_crc, body))
            else:
                continue
            break
        if damaged:
            self._set_aside(damaged)
        self._under_way[output] = {*without, *(row.id for row in rows)}
        return sorted(rows, key=lambda row: row.id)

    def delivered(self, output: str, rows: Iterable[int], refused: Iterable[Refusal]) -> None:
        """See ``Spool``."""
        state = self.state
        position = state.outputs[output]
        lost: dict[int, list[Refusal]] = {}
        for refusal in refused:
            lost.setdefault(refusal.row, []).append(refusal)
        for row in rows:
            self._under_way.get(output, set()).discard(row)
            facts = self.db.execute(f"SELECT {_FACTS} FROM batch WHERE id = ?", (row,)).fetchone()  # noqa: S608
            if facts is None or position.has(row):
                continue
            state.changed = True
            kind, counts, text, raw_bytes, _ = facts
            readings = readings_of(text)
            dead = self._refuse(output, kind, readings, lost[row], counts=bool(counts)) if row in lost else {}
            position.rows -= 1
            position.bytes -= raw_bytes
            position.add(row)
            if kind == _RAW:
                for source, number in readings.items():
                    position.account.wait(source, -number)
                    position.account.move(source, "queued", "dead", dead.get(source, 0))
                    position.account.move(source, "queued", "delivered", number - dead.get(source, 0))
            if all(other.has(row) for other in state.outputs.values()):
                self._remove(row, "delivered")
        self._tidy(position)

    def _refuse(
        self, output: str, kind: int, readings: dict[str, int], refusals: list[Refusal], *, counts: bool
    ) -> dict[str, int]:
        """Makes dead letters of points of a row; returns their readings by source.

        Those of a row that does not count on the ledger of all outputs, since another one does, do not either. A point
        does not tell its source: it counts on the first one that has so many left.
        """
        dead: dict[str, int] = {}
        row = refusals[0].row
        span = (row << _LINE_BITS, (row + 1 << _LINE_BITS) - 1)
        query = "SELECT id, readings, source FROM refused WHERE id BETWEEN ? AND ?"
        known = {number: (count, source) for number, count, source in self.db.execute(query, span)}
        left = dict(readings)
        for count, source in known.values():
            left[source] = left.get(source, 0) - count
        for refusal in refusals:
            place = (row << _LINE_BITS) + refusal.line
            overall = place not in known
            if overall:
                wanted = _readings_in(refusal.text) if kind == _RAW else 0
                source = next((name for name, number in left.items() if number >= wanted), next(iter(left), ""))
                wanted = min(wanted, left.get(source, 0))
                left[source] = left.get(source, 0) - wanted
                known[place] = wanted, source
                put(self.db, "refused", (place, wanted, source))
            number, source = known[place]
            dead[source] = dead.get(source, 0) + number
            letter = DeadLetter(_now(), source, "", refusal.text, refusal.reason, number)
            self._bury([(letter, output)], overall=overall and counts, refused=place)
        return dead

    def _remove(self, row: int, fate: str) -> int:
        """Deletes a row; its readings, but for the refused ones, meet their fate. Returns how many did."""
        state = self.state
        if fate == "evicted" and not self._sound(row):
            self._set_aside([row])
            return 0
        facts = self.db.execute(f"SELECT {_FACTS} FROM batch WHERE id = ?", (row,)).fetchone()  # noqa: S608
        kind, overall, text, raw_bytes, size = facts
        readings = readings_of(text)
        lacking = [position for position in state.outputs.values() if not position.has(row)]
        for position in lacking:
            position.rows -= 1
            position.bytes -= raw_bytes
        if kind == _RAW:
            dead = self._forget_refused(row)
            for source, number in readings.items():
                for position in lacking:
                    position.account.wait(source, -number)
                    position.account.move(source, "queued", fate, number)
                if overall:
                    state.account.wait(source, -number)
                    state.account.move(source, "queued", "dead", dead.get(source, 0))
                    state.account.move(source, "queued", fate, number - dead.get(source, 0))
        elif kind == _QUARANTINE and fate == "evicted":
            for account in (state.account, *(position.account for position in lacking)):
                for source, number in readings.items():
                    account.move(source, "quarantined", "evicted", number)
        self.db.execute("DELETE FROM batch WHERE id = ?", (row,))
        state.rows -= 1
        state.size -= size + _ROW_OVERHEAD
        state.changed = True
        self._delivering = self._delivering or fate == "delivered"
        return sum(readings.values())

    def _forget_refused(self, row: int) -> dict[str, int]:
        span = (row << _LINE_BITS, (row + 1 << _LINE_BITS) - 1)
        query = "SELECT source, sum(readings) FROM refused WHERE id BETWEEN ? AND ? GROUP BY source"
        dead = dict(self.db.execute(query, span).fetchall())
        if dead:
            self.db.execute("DELETE FROM refused WHERE id BETWEEN ? AND ?", span)
        return dead

    def _tidy(self, position: Position) -> None:
        """Ranges below the oldest row go; many are joined where no row lies between them."""
        state = self.state
        (state.low,) = self.db.execute("SELECT coalesce(min(id), ?) FROM batch", (state.next_row,)).fetchone()
        position.ranges = tidy(position.ranges, state.low)
        if len(position.ranges) < _TIDY:
            return
        joined = [position.ranges[0]]
        for first, last in position.ranges[1:]:
            between = (joined[-1][1] + 1, first - 1)
            if self.db.execute("SELECT 1 FROM batch WHERE id BETWEEN ? AND ? LIMIT 1", between).fetchone():
                joined.append((first, last))
            else:
                joined[-1] = (joined[-1][0], last)
        position.ranges = tuple(joined)

    # Dead letters

    def _bury(self, letters: Iterable[tuple[DeadLetter, str]], *, overall: bool = True, refused: int = 0) -> None:
        state = self.state
        before = state.next_dead
        for letter, output in letters:
            text = (letter.source, output, letter.topic, letter.reason)
            columns = (letter.received, *text, letter.readings, int(overall), refused, letter.payload)
            put(self.db, "dead", (state.next_dead, *columns))
            state.next_dead += 1
            state.dead_rows += 1
            state.dead_bytes += len(letter.payload)
        if before == state.next_dead:
            return
        state.changed = True
        while state.dead_rows > self.limits.dead_rows or state.dead_bytes > self._dead_bytes:
            (oldest,) = self.db.execute("SELECT min(id) FROM dead").fetchone()
            self._exhume(oldest)
            state.dead_low = oldest + 1
            state.dead_dropped += 1

    def _exhume(self, number: int) -> None:
        (size,) = self.db.execute("SELECT length(payload) FROM dead WHERE id = ?", (number,)).fetchone()
        self.db.execute("DELETE FROM dead WHERE id = ?", (number,))
        self.state.dead_rows -= 1
        self.state.dead_bytes -= size

    def requeue(self, ids: Sequence[int], entry: Entry | None) -> int:
        """See ``Spool``."""
        state = self.state
        done = 0
        back: dict[tuple[str, bool], list[DeadLetter]] = {}
        for number in ids:
            query = f"SELECT {', '.join(COLUMNS['dead'])} FROM dead WHERE id = ?"  # noqa: S608
            record = self.db.execute(query, (number,)).fetchone()
            if record is None:
                msg = f"there is no dead letter {number} any more"
                raise LookupError(msg)
            *_, source, output, topic, reason, readings, overall, refused, payload = record
            letter = DeadLetter(record[2], source, topic, payload, reason, readings)
            if not output:
                self._unread(number, letter)
            elif output in state.outputs:
                if overall and self.db.execute("DELETE FROM refused WHERE id = ?", (refused,)).rowcount:
                    overall = 0  # the row is still here, and so are its readings
                back.setdefault((output, bool(overall)), []).append(letter)
                position = state.outputs[output]
                fate, sign = ("dead", -1) if number >= position.dead_from else ("received", 1)
                position.account.count(source, fate, sign * readings)
                position.account.count(source, "queued", readings)
            else:
                continue
            self._exhume(number)
            done += 1
            state.changed = True
        for (output, overall), letters in back.items():
            self._put_back(output, letters, overall=overall)
        self.db.executemany("DELETE FROM request WHERE dead = ?", [(number,) for number in ids])
        if entry:
            self.append(entry)
        return done

    def _unread(self, number: int, letter: DeadLetter) -> None:
        """The entry that is decoded from it now counts it again: as if it had not been received before."""
        state = self.state
        accounts = [position.account for position in state.outputs.values() if number >= position.dead_from]
        for account in (state.account, *accounts):
            account.count(letter.source, "dead", -letter.readings)
            account.count(letter.source, "received", -letter.readings)

    def _put_back(self, output: str, letters: list[DeadLetter], *, overall: bool) -> None:
        """Refused points become a row for their output alone; the other outputs have them, or have refused them too."""
        readings: dict[str, int] = {}
        for letter in letters:
            readings[letter.source] = readings.get(letter.source, 0) + letter.readings
        readings = {source: number for source, number in readings.items() if number}
        if overall:
            for source, number in readings.items():
                self.state.account.move(source, "dead", "queued", number)
        packed = pack(b"\n".join(letter.payload for letter in letters))
        self._insert(_RAW, packed, readings, overall=overall, only=output)

    def requests(self) -> list[int]:
        """See ``Spool``."""
        asked = [number for (number,) in self.db.execute("SELECT dead FROM request ORDER BY dead")]
        query = "SELECT dead FROM request JOIN dead ON dead.id = request.dead ORDER BY 1"
        ids = [number for (number,) in self.db.execute(query)]
        if len(ids) < len(asked):
            self.state.changed = True
            self.db.execute("DELETE FROM request WHERE dead NOT IN (SELECT id FROM dead)")
        return ids

    # The state

    def write(self) -> None:
        """Puts the state into the transaction."""
        state = self.state
        state.changed = False
        state.serial += 1
        put(self.db, "state", (1, state.serial, state.text(), state.recent))

    def _begin(self) -> None:
        try:
            self.db = connect(self.path)
            self._open()
        except (Damaged, sqlite3.Error) as error:
            if isinstance(error, sqlite3.Error) and code(error) not in DAMAGED:
                raise
            self.replace(str(error))

    def _open(self) -> None:
        """Reads the state, and fits it to the configured outputs.

        Raises:
            Damaged: The state cannot be read, or the rows are not those of the ledger.
        """
        self.db.execute("BEGIN IMMEDIATE")
        try:
            state = self.state = load(self.db)
            self.keys = self._keys()
            before = state.outputs
            for name in before.keys() - set(self.outputs):
                _log.warning(
                    "%s: the output '%s' is no longer configured; what it lacked is forgotten", self.path, name
                )
            if before.keys() != set(self.outputs):
                state.outputs = {name: before.get(name) or _begun(self.db, state) for name in self.outputs}
                self._leave()
                self.write()
            self.db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            raise

    def _renew(self) -> None:
        """Finishes what a power cut interrupted in ``replace``."""
        fresh = Path(f"{self.path}.new")
        if fresh.exists() and not self.path.exists():
            self._move_aside()
            fresh.rename(self.path)

    def _move_aside(self) -> Path:
        aside = Path(f"{self.path}.damaged-{_now()}")
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
        return aside

    def _keys(self) -> bytes:
        parts = []
        blocks = []
        for record in self.db.execute("SELECT id, crc, serial, keys FROM keys ORDER BY serial"):
            if whole("keys", record):
                parts.append(record[3])
                blocks.append((record[0], len(record[3]) // _KEY_BYTES))
        self.state.blocks = tuple(blocks)
        return b"".join([*parts, self.state.recent])[-self.limits.keys * _KEY_BYTES :]

    def _leave(self) -> None:
        """Rows that every output has leave."""
        outputs = self.state.outputs.values()
        for (row,) in self.db.execute("SELECT id FROM batch").fetchall() if outputs else []:
            if all(position.has(row) for position in outputs):
                self._remove(row, "delivered")

    # Damage

    def _sound(self, row: int) -> bool:
        query = f"SELECT {', '.join(COLUMNS['batch'])} FROM batch WHERE id = ?"  # noqa: S608
        return whole("batch", self.db.execute(query, (row,)).fetchone())

    def _set_aside(self, rows: list[int]) -> None:
        for row in rows:
            _log.error("%s: row %d is damaged on disk; its bytes are in the dead letters", self.path, row)
            query = "SELECT coalesce(CAST(body AS BLOB), x'') FROM batch WHERE id = ?"
            (body,) = self.db.execute(query, (row,)).fetchone()
            letter = DeadLetter(_now(), "", "", body, "damaged on disk: the row's checksum is wrong", 0)
            self._bury([(letter, "")])
            self.db.execute("DELETE FROM batch WHERE id = ?", (row,))
            self._forget_refused(row)
            for position in self.state.outputs.values():
                position.add(row)
        self._reconcile("dead")

    def _reconcile(self, fate: str) -> int:
        """After damage: what a ledger calls queued and no row holds any more has met the given fate.

        Returns:
            How many readings have, on the whole ledger.
        """
        state = self.state
        state.changed = True
        measure(self.db, state)
        lost = 0
        for account in state.accounts():
            for source in account.waiting.keys() | account.sources.keys():
                account.count(source, "queued", 0)
                missing = account.sources[source]["queued"] - account.waiting.get(source, 0)
                account.count(source, "queued", -missing)
                account.count(source, fate if missing > 0 else "received", abs(missing))
                lost += max(missing, 0) if account is state.account else 0
        return lost

    def replace(self, why: str) -> None:
        """Moves a damaged file aside and starts a new one with all that can be read of it."""
        self.broken = why
        fresh = Path(f"{self.path}.new")
        with suppress(AttributeError, sqlite3.Error):
            self.db.close()
        for suffix in ("", "-journal"):
            Path(f"{fresh}{suffix}").unlink(missing_ok=True)
        self.space.give_up()
        self.db = connect(fresh, journal="MEMORY")  # if the power goes, the damaged file is still the spool
        try:
            lost = self._salvage()
        finally:
            self.db.close()  # nothing may be written to it before it has its name
        aside = self._move_aside()
        fresh.rename(self.path)
        self.db = connect(self.path)
        self._open()
        self.broken = ""
        _log.error(
            "%s: the spool was damaged (%s); it is set aside as %s and a new one started: %d rows kept, %d readings "
            "lost and counted as evicted",
            self.path,
            why,
            aside,
            self.state.rows,
            lost,
        )

    def _salvage(self) -> int:
        """Writes all that is whole in the damaged file to the new one; returns how many readings are lost."""
        newest = self._copy_records()
        if newest:
            state = self.state = State.of(newest[2], newest[3], newest[4])
        else:
            _log.error("%s: the ledger cannot be read; it begins anew with what is in the spool", self.path)
            state = self.state = State()
        self.db.execute("BEGIN")
        for row, kind in self.db.execute("SELECT id, class FROM batch").fetchall():
            if state.gone(row, kind):
                self.db.execute("DELETE FROM batch WHERE id = ?", (row,))
        self.db.execute(f"DELETE FROM refused WHERE id >> {_LINE_BITS} NOT IN (SELECT id FROM batch)")  # noqa: S608
        self.db.execute("DELETE FROM dead WHERE id < ?", (state.dead_low,))
        self.db.execute("DELETE FROM held WHERE id < ?", (state.held_low,))
        # The state found can be older than rows found: those came after it.
        query = "SELECT readings FROM batch WHERE class = ? AND id >= ?"
        for (text,) in self.db.execute(query, (_QUARANTINE, state.next_row)):
            readings = readings_of(text)
            state.add_counts({source: {"received": n, "quarantined": n} for source, n in readings.items()})
        ids = [self.db.execute(f"SELECT max(id) FROM {name}").fetchone()[0] for name in _NUMBERED]  # noqa: S608
        nexts = (state.next_row, state.next_dead, state.next_held)
        state.next_row, state.next_dead, state.next_held = (
            max(following, (last or 0) + 1) for following, last in zip(nexts, ids, strict=True)
        )
        lost = self._reconcile("evicted")
        self.write()
        self.db.execute("COMMIT")
        return lost

    def _copy_records(self) -> tuple[Any, ...] | None:
        """Copies all whole records but the state; returns the newest state."""
        newest = None
        full = False
        size = 0
        before: list[int] = []  # rows of the last transaction, which make room if the disk is full
        recent: list[int] = []
        self.db.execute("BEGIN")
        for table, record in found(self.path):
            if table == "state":
                newest = max(newest or record, record, key=lambda columns: columns[2])
            if full or table == "state":
                continue
            try:
                copy(self.db, table, record)
                if table == "batch":
                    recent.append(record[0])
                size += len(record[-1])
                if size > _SALVAGED:
                    self.db.execute("COMMIT")
                    self.db.execute("BEGIN")
                    size, before, recent = 0, recent, []
            except sqlite3.Error as error:
                if code(error) != sqlite3.SQLITE_FULL:
                    raise
                _log.error("%s: the disk is full: the rest stays in the damaged file", self.path)
                with suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")
                # ... and there is room again for the ledger
                self.db.executemany("DELETE FROM batch WHERE id = ?", [(row,) for row in before])
                full = True
        if not full:
            self.db.execute("COMMIT")
        return newest


def load(db: sqlite3.Connection) -> State:
    """Reads the state, and counts the rows.

    Raises:
        Damaged: The state cannot be read, or the rows are not those of the ledger.
    """
    record = db.execute("SELECT * FROM state").fetchone()
    if record is None or not whole("state", record):
        msg = "the ledger's checksum is wrong"
        raise Damaged(msg)
    state = State.of(record[2], record[3], record[4])
    rows = state.rows
    measure(db, state)
    if state.rows != rows or any(differences(account.sources, account.waiting) for account in state.accounts()):
        msg = "rows are missing"
        raise Damaged(msg)
    return state


def differences(sources: Mapping[str, Mapping[str, int]], waiting: Mapping[str, int]) -> list[str]:
    """Sources of which other readings are queued than wait."""
    return [
        source
        for source in {**sources, **waiting}
        if sources.get(source, {}).get("queued", 0) != waiting.get(source, 0)
    ]


def measure(db: sqlite3.Connection, state: State) -> None:
    """Counts what is in the tables anew."""
    held = dict(db.execute("SELECT source, sum(readings) FROM held GROUP BY source").fetchall())
    number, size = db.execute("SELECT count(*), coalesce(sum(length(payload)), 0) FROM held").fetchone()
    query = "SELECT count(*), coalesce(sum(length(payload)), 0) FROM dead"
    state.dead_rows, state.dead_bytes = db.execute(query).fetchone()
    sums = _sums(db, Position())
    state.rows = sums.rows
    state.size = sums.size + size + _ROW_OVERHEAD * (sums.rows + number)
    state.account.waiting = _together(sums.overall, held)
    known: dict[tuple[tuple[int, int], ...], _Sums] = {}
    for position in state.outputs.values():
        sums = known.get(position.ranges) or _sums(db, position)
        known[position.ranges] = sums
        position.rows, position.bytes = sums.rows, sums.raw_bytes
        position.account.waiting = _together(sums.raw, held)


def _sums(db: sqlite3.Connection, position: Position) -> _Sums:
    """What the rows that an output lacks hold."""
    sums = _Sums()
    for gap in position.gaps():
        for kind, overall, text, rows, raw_bytes, size in db.execute(_SUMS, gap):
            sums.rows += rows
            sums.raw_bytes += raw_bytes
            sums.size += size
            for source, number in readings_of(text).items():
                part = sums.raw if kind == _RAW else sums.quarantine
                part[source] = part.get(source, 0) + rows * number
                if kind == _RAW and overall:
                    sums.overall[source] = sums.overall.get(source, 0) + rows * number
    return sums


def _together(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {source: first.get(source, 0) + second.get(source, 0) for source in {**first, **second}}


def _begun(db: sqlite3.Connection, state: State) -> Position:
    """The position of a new output: what is here now is what it has received."""
    fresh = State(outputs={"": Position(dead_from=state.next_dead)})
    measure(db, fresh)
    position = fresh.outputs[""]
    for source, number in position.account.waiting.items():
        position.account.count(source, "received", number)
        position.account.count(source, "queued", number)
    for source, number in _sums(db, position).quarantine.items():
        position.account.count(source, "received", number)
        position.account.count(source, "quarantined", number)
    return position


def held_in(db: sqlite3.Connection, limit: int) -> list[Held]:
    """The oldest held messages."""
    query = "SELECT source, topic, payload, readings, boot, moment, floor, id FROM held ORDER BY id LIMIT ?"
    return [Held(*columns) for columns in db.execute(query, (limit,))]


def dead_in(db: sqlite3.Connection, limit: int) -> list[Dead]:
    """The newest dead letters, newest first."""
    query = "SELECT received, source, topic, payload, reason, readings, id, output FROM dead ORDER BY id DESC LIMIT ?"
    return [Dead(*columns) for columns in db.execute(query, (limit,))]


def _counted(entry: Entry, fate: str) -> dict[str, int]:
    return {source: counts[fate] for source, counts in entry.counts.items() if counts.get(fate)}


def _needed(size: int) -> int:
    """Room on the disk for that much: in the log, in the file, and for the ledger."""
    return 2 * size + 2**16


def _readings_in(line: bytes) -> int:
    """Number of readings that a point of a sensor carries: its value fields."""
    parts = re.split(rb"(?<!\\) ", line, maxsplit=2)
    if len(parts) == 1 or re.split(rb"[, ]", parts[0], maxsplit=1)[0] in _NOT_READINGS:
        return 0
    return sum(not name.partition(b"=")[0].endswith((b"_qc", b"_reason")) for name in parts[1].split(b","))


def _now() -> int:
    """Wall clock, ms UTC."""
    return time_ns() // 1_000_000


__all__ = ["DAMAGED", "Dead", "Limits", "Refusal", "Store", "dead_in", "differences", "held_in", "load", "measure"]
