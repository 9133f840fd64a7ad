"""A row of the spool: the points of one entry and one class, compressed so that rows can be joined to one request."""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Row:
    """Points of one class, appended together.

    Attributes:
        id: Ascending in the order of the appends.
        time: Of the append, ms UTC.
        lines: Number of points.
        raw_bytes: Length of the line protocol.
        raw_crc: CRC-32 of the line protocol.
        body: The line protocol, compressed; see ``text`` and ``gzip_of``.
    """

    id: int
    time: int
    lines: int
    raw_bytes: int
    raw_crc: int
    body: bytes

    def text(self) -> list[bytes]:
        """The points as lines."""
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(self.body).removesuffix(b"\n").split(b"\n")


@dataclass(slots=True, frozen=True)
class Packed:
    """Line protocol as a row holds it."""

    lines: int
    raw_bytes: int
    raw_crc: int
    body: bytes


def pack(lines: bytes) -> Packed:
    """Compresses points: raw deflate, flushed and not finished, so that bodies can be joined."""
    text = lines + b"\n"
    compressor = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return Packed(text.count(b"\n"), len(text), zlib.crc32(text), body)


def gzip_of(rows: Iterable[Row]) -> bytes:
    """Joins the rows to one gzip member without compressing anything again.

    One member, since servers differ in whether they read on after the first.
    """
    crc = size = 0
    parts = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    for row in rows:
        crc = join_crc(crc, row.raw_crc, row.raw_bytes)
        size += row.raw_bytes
        parts.append(row.body)
    parts += b"\x03\x00", struct.pack("<II", crc, size & 0xFFFFFFFF)  # an empty last block, the trailer of RFC 1952
    return b"".join(parts)


def _multiply(a: int, b: int) -> int:
    """Product of two polynomials modulo that of CRC-32, lowest power in the highest bit."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (0xEDB88320 if b & 1 else 0)
    return product


_SQUARES = [1 << 30]  # x^(2^k)
while len(_SQUARES) < 32:  # noqa: PLR2004 - x^(2^32) is x again
    _SQUARES.append(_multiply(_SQUARES[-1], _SQUARES[-1]))


def join_crc(first: int, second: int, length: int) -> int:
    """CRC-32 of two texts, the second ``length`` bytes long, from their CRCs: first · x^(8·length) + second."""
    power = 3
    while length and first:
        if length & 1:
            first = _multiply(_SQUARES[power % 32], first)
        length >>= 1
        power += 1
    return first ^ second


__all__ = ["Packed", "Row", "gzip_of", "join_crc", "pack"]
