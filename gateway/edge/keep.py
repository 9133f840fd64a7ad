"""Keep: what the filter has learnt survives a restart, in one file beside the spool.

The file consists of blocks, each of some sensors: who they are, what every step of the filter knows of their channels,
and a checksum. A block that is damaged costs its sensors what was learnt of them, and nothing else.

A save writes a new file and then puts it in the place of the old one, so that when power fails either is there, whole.
It does so only when all that was judged so far is committed: what the broker delivers again must not look like a
repetition. After a kill the filter goes on from the last save; to it, the time since then is one without readings.
"""

import asyncio
import logging
import os
import struct
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from math import prod
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.edge.readings import Channels, Flags, Ints

State = Mapping[str, npt.NDArray[np.generic]]
"""What a step knows of some channels: arrays of any kind of number, the first axis is the channel."""

_MAGIC, _VERSION = b"citygate", 1
_PREFIX = struct.Struct("<8sHII")  # magic, version, checksum, size
_PAGE = 4096  # blocks begin at a multiple, so that the next one is found behind a damaged one
_CHANNELS = 256  # of a block, or those of one sensor
_LARGEST = 2**26  # bytes of a block
_LEFT_FREE = 2**25  # bytes that are the spool's, whatever is saved
_LEFT_FREE_PART = 16  # of a small file system
_FIRST = 600.0  # s from the start to the first save, for devices that never run for long
_INTERVAL = 3600.0  # s between two saves
_PER_DAY = 2**30  # bytes; beyond, saves are rarer: memory cards wear out
_DAY = 86_400.0  # s
_NOT_HELD = -1

_log = logging.getLogger("citygate.keep")


class Known(msgspec.Struct, array_like=True, frozen=True):
    """Who a sensor is.

    Attributes:
        source: The declared source.
        kind: Its kind.
        site: Where it is.
        sensor: Its name.
        home: Quantities of its first message, in their order.
        later: Those that came later.
        foreign: Those of them that its kind does not know.
    """

    source: str
    kind: str
    site: str
    sensor: str
    home: list[str]
    later: list[str]
    foreign: list[str]


class Step(Protocol):
    """A step of the filter that keeps state of channels."""

    def state(self, channels: Ints) -> State:
        """What is known of some channels, as copies, a row each."""

    def restore(self, state: State, channels: Ints) -> None:
        """Takes up what was known of some channels.

        Raises:
            ValueError: It cannot be used; nothing is changed.
        """


class Register(Protocol):
    """Where sensors are entered: the decoder."""

    def enter(self, sensors: Iterable[Known]) -> list[list[int]]:
        """Enters sensors that were known in an earlier run.

        Returns:
            Of each sensor, the channels of *home* and *later*; -1 for those that the configuration has no place for.
        """


class _Array(msgspec.Struct, array_like=True):
    dtype: str
    shape: list[int]
    data: bytes


class _Block(msgspec.Struct, array_like=True):
    saved: int  # ms UTC
    sensors_in_all: int  # of the file
    sensors: list[Known]
    size: int  # of what follows before it was compressed
    steps: bytes  # dict[str, dict[str, _Array]]


@dataclass
class _Account:
    """What became of a file."""

    saved: int = 0
    expected: int = 0  # sensors
    found: int = 0
    entered: int = 0
    channels: int = 0
    left_out: int = 0  # channels
    problems: Counter[str] = field(default_factory=Counter)


class Keep:
    """The file of the filter's state.

    Args:
        path: Where it is.
        channels: All sensors and channels.
        register: Where sensors are entered.
        steps: The steps, by names that stay.
        stale: bool[channels], of which nothing came for so long that they are given up.
    """

    def __init__(
        self,
        path: Path,
        channels: Channels,
        register: Register,
        steps: Mapping[str, Step],
        stale: Callable[[], Flags],
    ) -> None:
        self._path = path
        self._new = path.with_name(f"{path.name}.new")
        self._channels = channels
        self._register = register
        self._steps = steps
        self._stale = stale
        self._saving = asyncio.Lock()

    def load(self) -> None:
        """Takes up the state of the last run, once, before any message is read.

        A file that cannot be used is set aside, and everything is learnt again: it never keeps a gateway from starting.
        """
        account = _Account()
        try:
            if not self._path.is_file():  # a first start
                return
            with self._path.open("rb") as file:
                entered = {place: self._enter(block, account) for place, block in _blocks(file, account.problems)}
                # now that all channels are there, each step makes room for them once
                for place, block in _blocks(file, Counter()):
                    if place in entered:
                        self._restore(block, entered[place], account.problems)
        except OSError as error:
            account.problems[f"cannot be read: {error.strerror}"] += 1
        except Exception as error:  # noqa: BLE001 - no fault of a step keeps a gateway from starting
            _log.exception("%s cannot be taken up", self._path)
            account.problems[f"cannot be taken up: {error!r}"] += 1
        if not account.found:
            why = "; ".join(account.problems) or "is empty"
            aside = self._path.with_name(f"{self._path.name}.unusable")
            with suppress(OSError):
                self._path.replace(aside)
            _log.error("%s: %s. It is set aside as %s; the filter learns everything again", self._path, why, aside.name)
            return
        _log.info(
            "the filter goes on from its state of %s: %d sensors, %d channels; %d channels are not configured any more",
            datetime.fromtimestamp(account.saved / 1000, UTC).isoformat(" ", "seconds"),
            account.entered,
            account.channels,
            account.left_out,
        )
        if (missing := account.expected - account.found) > 0:
            account.problems[f"{missing} of {account.expected} sensors are missing"] += 1
        for problem, times in account.problems.items():
            _log.warning("%s: %s (%d times); what it concerns is learnt again", self._path, problem, times)

    async def run(self, now: Callable[[], int], turn: asyncio.Lock, committed: Callable[[], Awaitable[None]]) -> None:
        """Saves every hour, or less often if that would be more than 1 GiB a day.

        Args:
            now: Present time, ms UTC.
            turn: As of `save`.
            committed: As of `save`.
        """
        await asyncio.sleep(_FIRST)
        while True:
            size = await self.save(now(), turn, committed)
            await asyncio.sleep(_pause(size))

    async def save(self, now: int, turn: asyncio.Lock, committed: Callable[[], Awaitable[None]]) -> int:
        """Saves the state of every channel, as it is when its block's turn comes. A failure is logged, and no more.

        Args:
            now: Present time, ms UTC.
            turn: Held by whoever judges, until what it judged is on its way to the spool or taken back.
            committed: Returns when all that is on its way there is committed.

        Returns:
            Size of the file, bytes; 0 if there is nothing to write, or if it could not be written.
        """
        began = time.monotonic()
        async with self._saving:
            try:
                size = await self._save(now, turn, committed)
            except OSError as error:
                reason = error.strerror or error
                _log.error("the filter's state cannot be saved to %s: %s", self._path, reason)
                return 0
            except Exception:  # noqa: BLE001 - or stops it
                _log.exception("the filter's state cannot be saved")
                return 0
            finally:
                with suppress(OSError):
                    self._new.unlink()
        if size:
            _log.info("the filter's state is saved: %d bytes in %.1f s", size, time.monotonic() - began)
        return size

    async def _save(self, now: int, turn: asyncio.Lock, committed: Callable[[], Awaitable[None]]) -> int:
        stale = self._stale()
        in_all = len(np.unique(self._channels.owner[: len(stale)][~stale]))
        if not in_all:
            return 0
        with await asyncio.to_thread(_create, self._new) as file:
            for sensors, channels in self._parts(stale.tobytes(), len(self._channels.sensors)):
                async with turn:
                    states = {name: step.state(channels) for name, step in self._steps.items()}
                await asyncio.to_thread(_write, file, now, in_all, sensors, states)
            size = await asyncio.to_thread(_finish, file)
            async with turn:
                await committed()
            await asyncio.to_thread(_rename, self._new, self._path)
        return size

    def _parts(self, stale: bytes, count: int) -> Iterator[tuple[list[Known], Ints]]:
        """The first sensors in blocks, and the channels of all their quantities; others may come meanwhile."""
        known: list[Known] = []
        numbers: list[int] = []
        for sensor in islice(self._channels.sensors, count):
            home = {name: channel for channel, name in enumerate(sensor.home.names, sensor.base)}
            later = sensor.channels or {}
            home, later = (
                {name: channel for name, channel in own.items() if stale[channel : channel + 1] != b"\1"}
                for own in (home, later)
            )
            if not (home or later):
                continue
            if numbers and len(numbers) + len(home) + len(later) > _CHANNELS:
                yield known, np.array(numbers, np.int64)
                known, numbers = [], []
            own = {**home, **later}
            foreign = [name for name, channel in own.items() if not self._channels.rule[channel]]
            family = sensor.family
            known.append(Known(family.source, family.kind, sensor.site, sensor.name, [*home], [*later], foreign))
            numbers += own.values()
        if numbers:
            yield known, np.array(numbers, np.int64)

    def _enter(self, block: _Block, account: _Account) -> Ints:
        """The channels that a block's sensors have now."""
        places = self._register.enter(block.sensors)
        channels = np.array([channel for own in places for channel in own], np.int64)
        account.saved, account.expected = block.saved, block.sensors_in_all
        account.found += len(block.sensors)
        account.entered += sum(max(own, default=_NOT_HELD) != _NOT_HELD for own in places)
        account.left_out += (left_out := int(np.count_nonzero(channels == _NOT_HELD)))
        account.channels += len(channels) - left_out
        return channels

    def _restore(self, block: _Block, channels: Ints, problems: Counter[str]) -> None:
        try:
            plain = zlib.decompressobj().decompress(block.steps, min(block.size, _LARGEST))
            steps = msgspec.msgpack.decode(plain, type=dict[str, dict[str, _Array]])
        except (zlib.error, msgspec.MsgspecError) as error:
            problems[f"is damaged: {error}"] += 1
            return
        held = channels != _NOT_HELD
        for name, step in self._steps.items():
            try:
                state = {key: _array(packed, len(held))[held] for key, packed in steps.get(name, {}).items()}
                step.restore(state, channels[held])
            except Exception as error:  # noqa: BLE001 - whatever another version's state does to a step
                problems[f"the state of '{name}' cannot be used: {error}"] += 1


def _pause(size: int) -> float:
    """Seconds from a save of so many bytes to the next one."""
    return max(_INTERVAL, size / _PER_DAY * _DAY)


def _array(packed: _Array, rows: int) -> npt.NDArray[np.generic]:
    dtype = np.dtype(packed.dtype)
    if dtype.kind not in "biuf" or not packed.shape or packed.shape[0] != rows:
        msg = f"an array of {packed.dtype} and shape {packed.shape}"
        raise ValueError(msg)
    return np.frombuffer(packed.data, dtype, prod(packed.shape)).reshape(packed.shape)


def _create(path: Path) -> BinaryIO:
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _write(file: BinaryIO, now: int, in_all: int, sensors: list[Known], states: Mapping[str, State]) -> None:
    system = os.fstatvfs(file.fileno())
    total, free = system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize
    if free < min(_LEFT_FREE, total // _LEFT_FREE_PART):
        msg = f"only {free} bytes are free on the disk, and they are the spool's"
        raise OSError(msg)
    steps = {
        name: {key: _Array(array.dtype.str, list(array.shape), array.tobytes()) for key, array in state.items()}
        for name, state in states.items()
    }
    plain = msgspec.msgpack.encode(steps)
    body = msgspec.msgpack.encode(_Block(now, in_all, sensors, len(plain), zlib.compress(plain, 1)))
    file.write(_PREFIX.pack(_MAGIC, _VERSION, _checksum(body), len(body)))
    file.write(body)
    file.write(bytes(-file.tell() % _PAGE))


def _checksum(body: bytes) -> int:
    return zlib.crc32(body, len(body))


def _finish(file: BinaryIO) -> int:
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def replace(path: Path, content: bytes) -> None:
    """Writes a small file in the place of an old one, so that when power fails either is there, whole.

    Raises:
        OSError: If it cannot be written.
    """
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        _finish(file)
    _rename(new, path)


def _rename(new: Path, path: Path) -> None:
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _blocks(file: BinaryIO, problems: Counter[str]) -> Iterator[tuple[int, _Block]]:
    """The whole blocks of a file, and where each is; what is wrong with the others is counted."""
    decoder = msgspec.msgpack.Decoder(_Block)
    place, damaged = 0, False
    while True:
        file.seek(place)
        prefix = file.read(_PREFIX.size)
        if not prefix:
            return
        try:
            block = decoder.decode(_body(prefix, file))
        except (ValueError, msgspec.MsgspecError) as error:
            if not damaged:  # one stretch of it
                problems[str(error)] += 1
            place, damaged = place + _PAGE, True
        else:
            here, place, damaged = place, -(-file.tell() // _PAGE) * _PAGE, False
            yield here, block


def _body(prefix: bytes, file: BinaryIO) -> bytes:
    """What is in a block.

    Raises:
        ValueError: Its bytes are not those of a block of this version, as they were written.
    """
    if len(prefix) < _PREFIX.size or not prefix.startswith(_MAGIC):
        msg = "is damaged, or is no file of a filter's state"
        raise ValueError(msg)
    _, version, checksum, size = _PREFIX.unpack(prefix)
    if version != _VERSION:
        msg = f"has version {version}; this citygate reads version {_VERSION}"
        raise ValueError(msg)
    body = file.read(size) if size <= _LARGEST else b""
    if len(body) != size or checksum != _checksum(body):
        msg = "is damaged"
        raise ValueError(msg)
    return body


__all__ = ["Keep", "Known", "Register", "State", "Step"]
