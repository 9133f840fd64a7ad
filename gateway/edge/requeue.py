"""Requeue: dead letters are given another try, after what caused them is mended.

A point that a server refused goes to that output again. A message that could not be read goes the way of all messages;
if it cannot be read now either, it is a dead letter again, with a new id and the reason of now. Each step is one
transaction: a kill at any moment loses nothing and counts nothing twice.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

from gateway.edge.batch import DeadLetter, Entry, RawBatch
from gateway.edge.decode import FLOODING, Decoder
from gateway.edge.encode import encode
from gateway.edge.filter import Filter
from gateway.edge.readings import Channels
from gateway.edge.redact import Redactor, is_withheld
from gateway.edge.spool import Dead, Spool

_AT_ONCE = 200  # messages a transaction; so few of one sensor are no flood

_REST = "the rest of those of which the first was tried again"

_log = logging.getLogger("citygate.requeue")


async def requeue(  # noqa: PLR0913, PLR0917 - the steps of the way
    spool: Spool,
    redactor: Redactor,
    decoder: Decoder,
    judge: Filter,
    channels: Channels,
    gateway: str,
    ids: Collection[int],
) -> int:
    """Gives dead letters another try.

    Args:
        spool: Where they are.
        redactor: The first step of the way.
        decoder: The second.
        judge: The third.
        channels: What both refer to.
        gateway: The gateway's name.
        ids: Of the dead letters; those that are gone meanwhile, and those whose payload is withheld, are passed over. A
            message that left several goes once, and all of them with it.

    Returns:
        How many have left the dead letters under their id.

    Raises:
        SpoolError: The spool cannot do it now; what was done before stays done.
    """
    wanted = set(ids)
    letters = [*reversed(await spool.dead_letters(limit=-1))]
    points = [dead.id for dead in letters if dead.output and dead.id in wanted]
    messages: dict[tuple[int, str, bytes], list[Dead]] = {}
    for dead in letters:
        if not (dead.output or is_withheld(dead.payload)):
            messages.setdefault((dead.received, dead.topic, dead.payload), []).append(dead)
    whole = [its for its in messages.values() if not wanted.isdisjoint(dead.id for dead in its)]
    done = 0
    for start in range(0, len(points), _AT_ONCE):
        done += await _put_back(spool, points[start : start + _AT_ONCE])
    way = _Way(spool, redactor, decoder, judge, channels, gateway)
    for start in range(0, len(whole), _AT_ONCE):
        done += await way.go(whole[start : start + _AT_ONCE])
    return done


async def _put_back(spool: Spool, ids: Sequence[int]) -> int:
    try:
        return await spool.requeue(ids)
    except LookupError:  # one was dropped at the bound meanwhile
        if len(ids) == 1:
            return 0
        middle = len(ids) // 2
        return await _put_back(spool, ids[:middle]) + await _put_back(spool, ids[middle:])


class _Way:
    """The way of a message, as the agent goes it."""

    def __init__(  # noqa: PLR0913, PLR0917 - the steps of the way
        self,
        spool: Spool,
        redactor: Redactor,
        decoder: Decoder,
        judge: Filter,
        channels: Channels,
        gateway: str,
    ) -> None:
        self._spool = spool
        self._redactor = redactor
        self._decoder = decoder
        self._filter = judge
        self._channels = channels
        self._gateway = gateway

    async def go(self, messages: Sequence[Sequence[Dead]]) -> int:
        """Takes messages to the spool, each with all its letters; how many letters have gone."""
        firsts = [letters[0] for letters in messages]
        batch = RawBatch(
            topics=[letter.topic for letter in firsts],
            payloads=[letter.payload for letter in firsts],
            received=[letter.received for letter in firsts],
            again=True,
        )
        letters = [letter for its in messages for letter in its]
        try:
            entry = self._encoded(batch)
        except Exception as error:  # noqa: BLE001 - whatever a message does to a step
            if len(messages) > 1:
                return await self._halves(messages)
            told = None if 0 in batch.personal else error  # its text may quote the message
            _log.error("a message of topic %s cannot be processed", firsts[0].topic, exc_info=told)
            entry = Entry()
            reason = f"cannot be processed: {type(error).__name__ if told is None else repr(error)}"
            _bury(entry, replace(firsts[0], payload=batch.payloads[0], reason=reason))
        else:
            for letter in letters:
                if letter.readings > 1 and letter.reason.startswith((FLOODING, _REST)):  # the others were not kept
                    reason = letter.reason if letter.reason.startswith(_REST) else f"{_REST} ({letter.reason})"
                    _bury(entry, replace(letter, payload=b"", readings=letter.readings - 1, reason=reason))
        try:
            done = await self._spool.requeue([dead.id for dead in letters], entry)
        except LookupError:  # one was dropped at the bound meanwhile
            self._filter.undo()
            return await self._halves(messages) if len(messages) > 1 else 0
        except BaseException:
            self._filter.undo()
            raise
        self._decoder.remember(entry.keys)
        return done

    def _encoded(self, batch: RawBatch) -> Entry:
        self._redactor.redact(batch)
        readings = self._decoder.decode(batch)
        try:
            entry = encode(readings, self._filter.judge(readings), self._channels, self._gateway)
            self._redactor.note(readings.sightings, batch.received[-1], entry)
            return entry  # noqa: TRY300 - a fault of any step takes the judgement back
        except BaseException:
            self._filter.undo()
            raise

    async def _halves(self, messages: Sequence[Sequence[Dead]]) -> int:
        middle = len(messages) // 2
        return await self.go(messages[:middle]) + await self.go(messages[middle:])


def _bury(entry: Entry, letter: DeadLetter) -> None:
    counts = entry.counts.setdefault(letter.source, {})
    for name in ("received", "dead"):
        counts[name] = counts.get(name, 0) + letter.readings
    entry.dead.append(letter)


__all__ = ["requeue"]
