"""A store for tests: takes what a gateway writes by InfluxDB's own protocol, and gives it back as readings."""

import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from gateway.edge.reasons import reason_text
from gateway.testing.points import Event, Stored, Verdict
from gateway.words import FLAGS
from sensors.lineprotocol import Field, Point, parse

_APART = ("quarantine", "event", "verdict", "gateway")
"""Measurements that are no kinds."""
_Key = tuple[str, tuple[tuple[str, str], ...], int]


class Store:
    """A server on a port of loopback that answers ``POST /api/v2/write`` as InfluxDB 2 does; keeps points in memory.

    As in InfluxDB, a point is known by measurement, tags and time; what is written again is merged, field by field.

    Attributes:
        url: What a gateway's output is told.
        requests: Answered so far.
        bytes: Of their bodies, as they came.
    """

    def __init__(self) -> None:
        self.requests = self.bytes = 0
        self._lock = threading.Lock()
        self._points: dict[_Key, Point] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="store", daemon=True).start()

    def close(self) -> None:
        """Listens no more."""
        self._server.shutdown()
        self._server.server_close()

    def write(self, body: bytes, precision: str) -> str:
        """Takes line protocol; returns what is wrong with it, nothing if all of it was taken."""
        raw = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        points, errors = parse(raw, precision)  # type: ignore[arg-type] # what it does not know, it names
        with self._lock:
            self.requests += 1
            self.bytes += len(body)
            for point in points:
                key = point.measurement, tuple(sorted(point.tags.items())), point.time
                if (known := self._points.get(key)) is not None:
                    known.fields.update(point.fields)
                else:
                    self._points[key] = point
        return "; ".join(f"line {error.line}: {error.message}" for error in errors)

    def measured(self, measurement: str | None = None) -> list[Point]:
        """Points as they were written, of one measurement or all, in the order of time."""
        with self._lock:
            points = list(self._points.values())
        return sorted(
            (point for point in points if measurement in {None, point.measurement}), key=lambda point: point.time
        )

    def points(
        self,
        kind: str | None = None,
        site: str | None = None,
        sensor: str | None = None,
        quantity: str | None = None,
        flag: str | None = None,
    ) -> list[Stored]:
        """Readings with their flags, by sensor, quantity and time; those in quarantine are among them, as ``fail``.

        Args:
            kind: Of this kind only; likewise the next three.
            site: See above.
            sensor: See above.
            quantity: See above.
            flag: With this flag only: ``good``, ``unknown``, ``suspect``, ``fail`` or ``missing``.
        """
        wanted = kind, site, sensor, quantity
        return [
            stored
            for stored in sorted(self._stored(), key=lambda stored: stored[:5])
            if all(want in {None, name} for want, name in zip(wanted, stored[:4], strict=True))
            and flag in {None, stored.flag}
        ]

    def quarantine(self, **names: str) -> list[Stored]:
        """Failed values, which are kept out of the main measurement; by the arguments of :meth:`points`."""
        return self.points(**names, flag="fail")

    def events(self) -> list[Event]:
        """Events in the order of time."""
        return [
            Event(
                *_names(point.tags),
                str(point.fields["quantity"]),
                point.time,
                point.tags["severity"],
                _number(point.fields, "value"),
                _number(point.fields, "limit"),
                str(point.fields.get("message", "")),
            )
            for point in self.measured("event")
        ]

    def verdicts(self) -> list[Verdict]:
        """Verdicts in the order in which they were made."""
        return [
            Verdict(
                *_names(point.tags),
                point.tags["quantity"],
                int(_number(point.fields, "since")),
                int(_number(point.fields, "until")),
                point.tags["what"],
                str(point.fields.get("reason", "")),
            )
            for point in self.measured("verdict")
        ]

    def _stored(self) -> Iterator[Stored]:
        apart = {
            (*_names(point.tags), point.tags["quantity"], point.time): point for point in self.measured("quarantine")
        }
        for point in self.measured():
            if point.measurement in _APART:
                continue
            names = point.measurement, point.tags.get("site", ""), point.tags.get("sensor", "")
            fields = point.fields
            for quantity in dict.fromkeys(name.removesuffix("_qc").removesuffix("_reason") for name in fields):
                bits = int(fields.get(f"{quantity}_reason", 0))
                value, reason = fields.get(quantity), reason_text(bits) if bits else ""
                if (failed := apart.pop((*names, quantity, point.time), None)) is not None and value is None:
                    value, reason = failed.fields.get("value"), str(failed.fields.get("reason", ""))
                flag = FLAGS.get(int(_number(fields, f"{quantity}_qc")), "") if f"{quantity}_qc" in fields else ""
                yield Stored(*names, quantity, point.time, value, flag, reason)
        for (kind, site, sensor, quantity, time), point in apart.items():  # whose message had nothing else
            reason = str(point.fields.get("reason", ""))
            yield Stored(kind, site, sensor, quantity, time, point.fields.get("value"), "fail", reason)


def _names(tags: Mapping[str, str]) -> tuple[str, str, str]:
    return tags.get("kind", ""), tags.get("site", ""), tags.get("sensor", "")


def _number(fields: Mapping[str, Field], name: str) -> float:
    value = fields[name]
    return value if isinstance(value, int | float) else float("nan")


def _handler(store: Store) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # a gateway keeps its connection

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = urlsplit(self.path)
            if url.path != "/api/v2/write":
                self._answer(404, '{"code":"not found","message":"this store answers POST /api/v2/write"}')
                return
            wrong = store.write(body, parse_qs(url.query).get("precision", ["ns"])[0])
            self._answer(400 if wrong else 204, json.dumps({"code": "invalid", "message": wrong}) if wrong else "")

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
