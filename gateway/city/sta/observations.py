"""Observations: readings out of the store, a page at a time.

Time bounds of a filter go to the store. What else a filter asks is tried on the readings, at most
``MAX_POINTS`` of them an answer; a page may then be short, and its next link goes on where it ended.
"""

import heapq
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from gateway.city.sta import expressions
from gateway.city.sta.entities import TIMES, Catalogue, Datastream, Entity
from gateway.city.sta.expressions import ExpressionError, Path
from gateway.city.sta.options import OptionError, Options
from gateway.city.store.base import MAX_POINTS, Reading, Store

_START, _END = 0, 9_000_000_000_000
_CHUNK = 1000
_STREAM_IDS = frozenset({"Datastream/id", "Datastream/@iot.id"})


@dataclass(slots=True)
class Page:
    """A page of observations.

    Attributes:
        entities: The observations.
        token: Where the next page begins; None on the last, or when pages are counted.
        more: Whether there is a next page.
        count: Of all that were asked for, when that was asked.
    """

    entities: list[Entity]
    token: str | None = None
    more: bool = False
    count: int | None = None


async def one(store: Store, catalogue: Catalogue, id_: str) -> Entity | None:
    """The observation of an id; None when there is none."""
    name, _, time = id_.rpartition("@")
    stream = catalogue.sets["Datastreams"].get(name)
    if not isinstance(stream, Datastream) or not (time.isascii() and time.isdecimal()) or int(time[:15]) >= _END:
        return None
    found = await store.page(stream.key, stream.quantity, int(time), int(time) + 1, 1)
    return catalogue.observation(stream, found[0]) if found else None


async def page(store: Store, catalogue: Catalogue, streams: list[Datastream], options: Options) -> Page:
    """A page of the observations of some datastreams.

    Without an order they come by datastream, then by time.

    Raises:
        OptionError: If an option cannot be used, or asks for more than an answer may read.
        StoreError: If the store does not answer.
    """
    return await _Query(store, catalogue, streams, options).page()


class _Query:
    def __init__(self, store: Store, catalogue: Catalogue, streams: list[Datastream], options: Options) -> None:
        self._store = store
        self._catalogue = catalogue
        self._options = options
        start, end, whole = expressions.bounds(options.where, TIMES)
        self._start = min(max(_START, start or 0), _END)
        self._end = _END if end is None else max(_START, min(end, _END))
        name, only = expressions.named(options.where, _STREAM_IDS)
        self._streams = [stream for stream in streams if name is None or stream.id == name]
        self._plain = options.where is None or whole or only
        self._tried = 0

    async def page(self) -> Page:
        order = self._options.order
        by_time = all(isinstance(key, Path) and "/".join(key.parts) in TIMES for key, _ in order)
        found = await (self._walked() if by_time and (not order or len(self._streams) == 1) else self._sorted(by_time))
        if self._options.count:
            found.count = await self._count()
        return found

    async def _walked(self) -> Page:
        """One datastream after the other, each in order of time."""
        options = self._options
        falls = bool(options.order and options.order[0][1])
        first, at = self._place()
        skip = options.skip if options.token is None else 0
        entities: list[Entity] = []
        for stream in self._streams[first:]:
            start, end = self._start, self._end
            if at is not None:
                start, end = (start, min(end, at)) if falls else (max(start, at + 1), end)
                at = None
            offset = 0
            if skip and self._plain:  # the store leaves out what the page does not show
                there = await self._store.count(stream.key, stream.quantity, start, end)
                offset, skip = min(skip, there), max(0, skip - there)
            async for entity, matches in self._readings(stream, start, end, falls=falls, offset=offset):
                token = entity.id
                if matches and skip:
                    skip -= 1
                elif matches and len(entities) == options.top:
                    return Page(entities, entities[-1].id if entities else None, more=True)
                elif matches:
                    entities.append(entity)
                if self._tried >= MAX_POINTS and not self._plain:
                    if skip:
                        self._too_much("$skip")
                    return Page(entities, token, more=True)
        return Page(entities)

    async def _sorted(self, by_time: bool) -> Page:  # noqa: FBT001 - what the order is by
        """All together: by time the ends of each datastream, otherwise everything."""
        options = self._options
        needed = options.skip + options.top + 1 if by_time else MAX_POINTS
        falls = bool(options.order[0][1])
        streams = _latest(self._streams, needed) if by_time and falls and options.where is None else self._streams
        if by_time and needed * len(streams) > MAX_POINTS:
            self._too_much("$orderby")
        entities: list[Entity] = []
        for stream in streams:
            number = 0
            async for entity, matches in self._readings(stream, self._start, self._end, falls=falls, most=needed):
                if self._tried > MAX_POINTS:
                    self._too_much("$orderby")
                if matches:
                    entities.append(entity)
                    number += 1
                    if number == needed:
                        break
        ordered = ordered_by(entities, options)
        shown = ordered[options.skip : options.skip + options.top]
        return Page(shown, more=len(ordered) > options.skip + options.top)

    async def _readings(  # noqa: PLR0913 - a part of a series
        self, stream: Datastream, start: int, end: int, *, falls: bool, offset: int = 0, most: int | None = None
    ) -> AsyncIterator[tuple[Entity, bool]]:
        wanted = min(_CHUNK, (self._options.top if most is None else most) + 1) if self._plain else _CHUNK
        while True:
            readings: list[Reading] = await self._store.page(
                stream.key, stream.quantity, start, end, wanted, newest_first=falls, offset=offset
            )
            for reading in readings:
                self._tried += 1
                entity = self._catalogue.observation(stream, reading)
                yield entity, self._plain or matching(entity, self._options)
            if len(readings) < wanted:
                return
            offset = 0
            if falls:
                end = readings[-1].time
            else:
                start = readings[-1].time + 1

    async def _count(self) -> int:
        if self._plain:
            return sum(
                [
                    await self._store.count(stream.key, stream.quantity, self._start, self._end)
                    for stream in self._streams
                ]
            )
        self._tried = number = 0
        for stream in self._streams:
            async for _, matches in self._readings(stream, self._start, self._end, falls=False):
                number += matches
                if self._tried > MAX_POINTS:
                    self._too_much("$count")
        return number

    def _place(self) -> tuple[int, int | None]:
        token = self._options.token
        if token is None:
            return 0, None
        name, _, time = token.rpartition("@")
        place = next((place for place, stream in enumerate(self._streams) if stream.id == name), None)
        if place is None or not (time.isascii() and time.isdecimal()) or int(time[:15]) >= _END:
            msg = f"$skiptoken: '{token}' is not from a next link of these observations"
            raise OptionError(msg)
        return place, int(time)

    def _too_much(self, option: str) -> None:
        msg = (
            f"{option}: more than {MAX_POINTS} observations would have to be read; narrow it by phenomenonTime in"
            " $filter, or ask for the Observations of one Datastream"
        )
        raise OptionError(msg)


def _latest(streams: list[Datastream], number: int) -> list[Datastream]:
    """The datastreams that the newest observations of all are among; what is not known to have a newest one stays."""
    known = [(datetime.fromisoformat(stream.newest), stream) for stream in streams if stream.newest is not None]
    newest = heapq.nlargest(number, known, key=lambda item: item[0])
    return [stream for _, stream in newest] + [stream for stream in streams if stream.newest is None]


def matching(entity: Entity, options: Options) -> bool:
    """Whether the filter lets an entity through.

    Raises:
        OptionError: If the filter has no value for it.
    """
    if options.where is None:
        return True
    try:
        return expressions.holds(options.where, entity)
    except ExpressionError as error:
        msg = f"$filter: {error}"
        raise OptionError(msg) from error


def ordered_by(entities: list[Entity], options: Options) -> list[Entity]:
    """Entities in the order asked for; what has no value is last.

    Raises:
        OptionError: If a key has no value, or values of several kinds.
    """
    for key, falls in reversed(options.order):
        try:
            found = [(entity, next(iter(key.of(entity)), None)) for entity in entities]
            present = sorted(
                (item for item in found if item[1] is not None),
                key=lambda item: item[1],  # type: ignore[arg-type,return-value]  # what cannot be compared is told below
                reverse=falls,
            )
        except ExpressionError as error:
            msg = f"$orderby: {error}"
            raise OptionError(msg) from error
        except TypeError as error:
            msg = "$orderby: values of several kinds have no order"
            raise OptionError(msg) from error
        entities = [entity for entity, _ in present] + [entity for entity, value in found if value is None]
    return entities
