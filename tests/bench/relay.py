"""A database's door that notes when it has taken what: forwards requests, and records each body at the answer.

``python -m tests.bench.relay PORT DATABASE_PORT FILE``; ``taken`` reads the file.
"""

import gzip
import http.client
import struct
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_PASSED = ("Authorization", "Content-Encoding", "Content-Type")
_RECORD = struct.Struct("!QI")  # ms UTC of the answer, length of the body


def main(port: int, database_port: int, path: Path) -> None:
    """Serves until killed."""
    with path.open("ab", buffering=0) as record:

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                self._database = http.client.HTTPConnection("127.0.0.1", database_port, timeout=30)

            def do_POST(self) -> None:
                body = self._body()
                headers = {name: self.headers[name] for name in _PASSED if name in self.headers}
                self._database.request("POST", self.path, body, headers)
                answer = self._database.getresponse()
                content = answer.read()
                if answer.status < 300:
                    record.write(_RECORD.pack(time.time_ns() // 1_000_000, len(body)) + body)
                self.send_response(answer.status)
                if answer.status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if answer.status != 204:
                    self.wfile.write(content)

            def _body(self) -> bytes:
                if "Content-Length" in self.headers:
                    return self.rfile.read(int(self.headers["Content-Length"]))
                parts = []  # chunked
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def log_message(self, *_: object) -> None:
                """Keeps quiet."""

        ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def taken(path: Path) -> Iterator[tuple[int, bytes]]:
    """Every point that the database has taken: the moment, ms UTC, and its line."""
    data, at = path.read_bytes(), 0
    while at + _RECORD.size <= len(data):
        moment, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        for line in gzip.decompress(data[at : at + size]).splitlines():
            yield moment, line
        at += size


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
