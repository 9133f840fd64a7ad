"""Answers: from an address and its options to what SensorThings says about it."""

import asyncio
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

from gateway.city.sta import observations
from gateway.city.sta.entities import LINKS, OBSERVATIONS, PROPERTIES, SETS, Catalogue, Datastream, Entity
from gateway.city.sta.observations import matching, ordered_by
from gateway.city.sta.options import OptionError, Options
from gateway.city.store.base import Store

CONFORMANCE = (
    "http://www.opengis.net/spec/iot_sensing/1.1/req/datamodel",
    "http://www.opengis.net/spec/iot_sensing/1.1/req/resource-path/resource-path-to-entities",
    "http://www.opengis.net/spec/iot_sensing/1.1/req/request-data",
)
_SEGMENT = re.compile(r"(?P<name>[^()/]+)(?:\((?P<id>.*)\))?", re.DOTALL)
_MOST_ENTITIES = 20_000
_MANY = 100  # entities, among which choosing takes longer than a thread


class MissingError(Exception):
    """There is nothing at an address; the message says what is not there."""


class Answers:
    """Answers one request.

    Args:
        store: Where readings are.
        catalogue: The entities.
        root: Address of the service, without a slash at its end.
    """

    def __init__(self, store: Store, catalogue: Catalogue, root: str) -> None:
        self._store = store
        self._catalogue = catalogue
        self._root = root
        self._shown = 0

    def service(self) -> dict[str, Any]:
        """What the service's root says."""
        return {
            "value": [{"name": name, "url": f"{self._root}/{name}"} for name in SETS],
            "serverSettings": {"conformance": list(CONFORMANCE)},
        }

    async def at(self, path: str, options: Options) -> dict[str, Any] | str:
        """What is at an address below the root; text where ``$value`` asks for it.

        Raises:
            MissingError: If nothing is there.
            OptionError: If an option cannot be used.
            StoreError: If the store does not answer.
        """
        segments = _split(path)
        name, id_ = _segment(segments[0])
        if name not in SETS:
            msg = f"there is no '{name}'; there are {', '.join(SETS)}"
            raise MissingError(msg)
        entity: Entity | None = None
        many: list[Entity] | None = self._all(name)
        for place, segment in enumerate(segments):
            name, id_ = _segment(segment)
            if place:
                if entity is None:
                    msg = f"'{segments[place - 1]}' is many; name one by its id, as in {segments[place - 1]}('…')"
                    raise MissingError(msg)
                if name not in LINKS[entity.set]:
                    return _property(entity, segments[place:])
                many = self._linked(entity, name)
                name = LINKS[entity.set][name]
                if many is not None and segment not in SETS and id_ is None:  # a link to one
                    entity, many = (many[0] if many else None), []
                    if entity is None:
                        msg = f"it has no '{segment}'"
                        raise MissingError(msg)
                    continue
            streams = self._streams(entity)
            entity = None if id_ is None else await self._named(name, id_, many, streams)
            if entity is None and place == len(segments) - 1:
                return await self._collection(path, many, streams, options)
        if entity is None:
            msg = f"there is nothing at '{path}'"
            raise MissingError(msg)
        return await self._entity(entity, options)

    def _all(self, name: str) -> list[Entity] | None:
        return None if name == OBSERVATIONS else list(self._catalogue.sets[name].values())

    def _linked(self, entity: Entity, link: str) -> list[Entity] | None:
        return None if LINKS[entity.set][link] == OBSERVATIONS else entity.linked.get(link, [])

    def _streams(self, entity: Entity | None) -> list[Datastream]:
        """The datastreams whose observations belong to an entity, or all."""
        if entity is None:
            return self._catalogue.datastreams()
        if isinstance(entity, Datastream):
            return [entity]
        thing = self._catalogue.sets["Things"].get(entity.id)  # a feature of interest is called as its sensor
        linked = thing.linked.get("Datastreams", []) if thing else []
        return sorted((one for one in linked if isinstance(one, Datastream)), key=lambda stream: stream.id)

    async def _named(self, name: str, id_: str, many: list[Entity] | None, streams: list[Datastream]) -> Entity:
        found: Entity | None = None
        if many is None:
            found = await observations.one(self._store, self._catalogue, id_)
            if found is not None and found.linked["Datastream"][0] not in streams:
                found = None
        else:
            found = next((entity for entity in many if entity.id == id_), None)
        if found is None:
            msg = f"there is no {name}('{id_}')"
            raise MissingError(msg)
        return found

    async def _collection(
        self, path: str, many: list[Entity] | None, streams: list[Datastream], options: Options
    ) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        entities, more, count = await self._page(many, streams, options)
        if count is not None:
            answer["@iot.count"] = count
        if more is not None:
            answer["@iot.nextLink"] = self._link(path, options, more)
        answer["value"] = [await self._entity(entity, options) for entity in entities]
        return answer

    async def _page(
        self, many: list[Entity] | None, streams: list[Datastream], options: Options
    ) -> tuple[list[Entity], dict[str, str] | None, int | None]:
        """Entities of a page, what changes in the options for the next one if there is one, and how many there are."""
        if many is None:
            found = await observations.page(self._store, self._catalogue, streams, options)
            paged = {"$skip": str(options.skip + options.top)}
            following = paged if found.token is None else {"$skiptoken": found.token}
            return found.entities, (following if found.more and options.top else None), found.count
        if options.token is not None:
            msg = "$skiptoken: only next links of Observations have one"
            raise OptionError(msg)
        chosen = await asyncio.to_thread(_chosen, many, options) if len(many) > _MANY else _chosen(many, options)
        end = options.skip + options.top
        more = {"$skip": str(end)} if end < len(chosen) and options.top else None
        return chosen[options.skip : end], more, len(chosen) if options.count else None

    async def _entity(self, entity: Entity, options: Options) -> dict[str, Any]:
        self._shown += 1
        if self._shown > _MOST_ENTITIES:
            msg = (
                f"$expand: the answer would hold more than {_MOST_ENTITIES} entities; use $top, or $top within $expand"
            )
            raise OptionError(msg)
        links = LINKS[entity.set]
        whole = {"@iot.id": entity.id, "@iot.selfLink": f"{self._root}/{entity.path}", **entity.properties}
        for name in links:
            whole[f"{name}@iot.navigationLink"] = f"{self._root}/{entity.path}/{name}"
        if options.select is not None:
            whole = _selected(entity, whole, options.select)
        for name, inner in options.expand.items():
            if name not in links:
                msg = f"$expand: {entity.set} lead to {', '.join(links)}, not to '{name}'"
                raise OptionError(msg)
            whole.update(await self._expanded(entity, name, inner))
        return whole

    async def _expanded(self, entity: Entity, name: str, options: Options) -> dict[str, Any]:
        many = self._linked(entity, name)
        if many is not None and name not in SETS:
            return {name: await self._entity(many[0], options) if many else None}
        entities, more, count = await self._page(many, self._streams(entity), options)
        answer: dict[str, Any] = {name: [await self._entity(one, options) for one in entities]}
        if count is not None:
            answer[f"{name}@iot.count"] = count
        if more is not None:
            answer[f"{name}@iot.nextLink"] = self._link(f"{entity.path}/{name}", options, more, quoted=True)
        return answer

    def _link(self, path: str, options: Options, changes: dict[str, str], *, quoted: bool = False) -> str:
        query = {key: value for key, value in options.query.items() if key not in {"$skip", "$skiptoken"}} | changes
        address = path if quoted else quote(path, safe="/()':@,")
        return f"{self._root}/{address}?{urlencode(query, safe='$', quote_via=quote)}"


def _chosen(entities: list[Entity], options: Options) -> list[Entity]:
    return ordered_by([entity for entity in entities if matching(entity, options)], options)


def _selected(entity: Entity, whole: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name in names:
        if name in {"id", "@iot.id"}:
            chosen["@iot.id"] = entity.id
        elif name == "@iot.selfLink":
            chosen[name] = whole[name]
        elif name in LINKS[entity.set]:
            link = f"{name}@iot.navigationLink"
            chosen[link] = whole[link]
        elif name in PROPERTIES[entity.set]:
            if name in whole:
                chosen[name] = whole[name]
        else:
            msg = f"$select: {entity.set} have {', '.join(('id', *PROPERTIES[entity.set]))}, not '{name}'"
            raise OptionError(msg)
    return chosen


def _property(entity: Entity, segments: list[str]) -> dict[str, Any] | str:
    name, rest = segments[0], segments[1:]
    if name not in PROPERTIES[entity.set] or rest not in ([], ["$value"]):
        msg = f"{entity.set} have no '{'/'.join(segments)}'"
        raise MissingError(msg)
    value = entity.properties.get(name)
    if rest:
        return str(value)
    return {name: value}


def _split(path: str) -> list[str]:
    """Splits an address at the slashes outside quotes."""
    segments, quoted = [""], False
    for letter in path.strip("/"):
        quoted ^= letter == "'"
        if letter == "/" and not quoted:
            segments.append("")
        else:
            segments[-1] += letter
    return segments


def _segment(segment: str) -> tuple[str, str | None]:
    found = _SEGMENT.fullmatch(segment)
    if found is None:
        msg = f"'{segment}' is no address"
        raise MissingError(msg)
    id_ = found["id"]
    if id_ is None:
        return found["name"], None
    if len(id_) < 2 or id_[0] != "'" or id_[-1] != "'":  # noqa: PLR2004 - two quotes
        msg = f"ids are text in quotes, as in {found['name']}('…'), not {id_}"
        raise MissingError(msg)
    return found["name"], id_[1:-1].replace("''", "'")
