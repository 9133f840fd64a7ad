"""The agent: the way of a reading, from the broker to the spool, and from there to the servers.

    ingest → redact → decode → inspect → encode → spool ──→ forward
       ↑                                            │
       └───────── acknowledge after the commit ─────┘

When power fails, the broker still holds what was not acknowledged, and the spool holds what was.
"""

import asyncio
import contextlib
import itertools
import logging
import resource
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway import __version__
from gateway.config import GatewayConfig
from gateway.edge.alarms import Alarms
from gateway.edge.batch import DeadLetter, Entry, Held, RawBatch
from gateway.edge.clock import Clock
from gateway.edge.decode import UNMATCHED, Decoder
from gateway.edge.encode import encode, health
from gateway.edge.filter import Filter
from gateway.edge.forward import Forwarder
from gateway.edge.health import HealthServer
from gateway.edge.ingest import Ingest, Mqtt5Ingest
from gateway.edge.keep import Keep, Step
from gateway.edge.maintenance import Maintenance
from gateway.edge.memory import settle
from gateway.edge.readings import Channels
from gateway.edge.recorded import RecordedTime, merged
from gateway.edge.redact import Redactor, scrubbed, withheld
from gateway.edge.requeue import requeue
from gateway.edge.silence import Silences
from gateway.edge.spool import Ledger, Spool, SpoolError

log = logging.getLogger("citygate.agent")

_STOP_WITHIN = 9.0  # seconds; service managers kill after ten
_LAST_FLUSH = 5.0
_DEAD_LETTERS_LOGGED = 3  # a batch; the rest is in the spool
_CLOCK_INTERVAL = 1.0
_SILENCE_INTERVAL = 60
_RELEASED_AT_ONCE = 2000


class Agent:
    """One gateway.

    Args:
        config: Its configuration.

    Raises:
        KindError: If a file of kinds cannot be used.
        SourceError: If a source cannot be used as declared.
        SpoolError: If the spool cannot be opened.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.channels = Channels()
        self.decoder = Decoder.of(config, self.channels)
        self.redactor = Redactor(self.decoder.sources, self.decoder.kinds)
        self.maintenance = Maintenance.of(config, self.channels)
        kept = config.spool_path.with_name(f"{config.spool_path.name}.alarms")
        self.filter = Filter(self.channels, self.maintenance, Alarms(self.channels, config.rule, kept))
        self.recorded = RecordedTime() if config.mqtt.recorded_time else None
        self.silences = Silences(self.channels) if self.recorded is None else Silences(self.channels, self.recorded.now)
        self.spool = Spool.of(config)
        steps: dict[str, Step] = {**self.filter.steps, "silence": self.silences}
        file = config.spool_path.with_name(f"{config.spool_path.name}.filter")
        self.keep = Keep(file, self.channels, self.decoder, steps, self.silences.stale)
        self.keep.load()
        self.decoder.remember(self.spool.keys())
        self.clock = Clock(config.clock, self.spool.known_time)
        self.clock.check()
        self.ingest = _ingest(config, self.decoder, self._now)
        self.forwarders = [Forwarder(self.spool, output) for output in config.output]
        self._turn = asyncio.Lock()  # one batch at a time is judged
        self._judged: asyncio.Queue[tuple[RawBatch, list[Entry]] | None] = asyncio.Queue(maxsize=1)
        self._messages = 0  # committed and acknowledged since the start
        self._holding = True  # the spool may have messages that wait for the clock
        self._mismatches: list[str] = []
        self._stuck: dict[int, str] = {}  # entries that cannot be committed now, and why
        self._connected_since: int | None = None  # by the silences' clock
        self._started = time.monotonic()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Runs until :meth:`stop`, SIGTERM or SIGINT; then commits, acknowledges and flushes what is there."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        beside = [asyncio.create_task(forwarder.run()) for forwarder in self.forwarders]
        beside += asyncio.create_task(self._watch_clock()), asyncio.create_task(self._watch_silence())
        beside += (
            asyncio.create_task(self.keep.run(self.clock.now, self._turn, self._judged.join)),
            asyncio.create_task(self._report_health()),
        )
        async with HealthServer(self):
            log.info("gateway %s started", self.config.gateway.id, extra={"version": __version__})
            taking = asyncio.create_task(self._take_and_keep())
            await asyncio.wait([taking, *beside], return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():  # a task ended on its own: let its error be seen
                self.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_WITHIN):
                    await taking
                    await self.ingest.close()
                    for task in beside[-2:]:
                        task.cancel()
                    await self._commit(self._health())
                    await asyncio.gather(
                        self.keep.save(self.clock.now(), self._turn, self._judged.join),
                        *(forwarder.flush(_LAST_FLUSH) for forwarder in self.forwarders),
                    )
            for task in [taking, *beside]:
                task.cancel()
            results = await asyncio.gather(taking, *beside, return_exceptions=True)
        backlog = {output.name: self.spool.backlog(output.name).rows for output in self.config.output}
        await self.spool.close()
        log.info("gateway %s stopped", self.config.gateway.id, extra={"backlog": backlog})
        for result in results:
            if isinstance(result, Exception):
                raise result

    def stop(self) -> None:
        """Asks the agent to stop gracefully."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._stop_task = asyncio.ensure_future(self.ingest.stop())

    def _now(self) -> int:
        """When a message arrives that does not tell it."""
        return self.clock.now() if self.recorded is None or self.recorded.began is None else self.recorded.now()

    async def _take_and_keep(self) -> None:
        async with asyncio.TaskGroup() as way:
            way.create_task(self._take())
            way.create_task(self._keep())

    async def _take(self) -> None:
        await self._release()
        async for batch in self.ingest.batches():
            async with self._turn:
                if self.recorded is None:
                    self.clock.date(batch)
                self.redactor.redact(batch)
                if self.recorded is None:
                    entries = self._judge(batch)
                else:
                    entries = await self._judge_recorded(batch, self.recorded)
            await self._judged.put((batch, entries))
        await self._judged.put(None)

    async def _keep(self) -> None:
        """Commits a batch while the next one is judged."""
        while judged := await self._judged.get():
            batch, entries = judged
            for entry in entries:
                await self._commit(entry)
            self.ingest.acknowledge(batch)
            self._messages += len(batch.topics)
            if self.recorded is None:  # else whoever wants an answer is a recording
                for answer in itertools.chain.from_iterable(entry.answers for entry in entries):
                    self.ingest.answer(answer)
            self._judged.task_done()
        self._judged.task_done()  # the end

    def _judge(self, batch: RawBatch) -> list[Entry]:
        """The way of a batch up to the spool; a message that no step can bear is kept apart from the others."""
        fault: Exception | None = None
        try:
            readings = self.decoder.decode(batch)
            try:
                findings = self.filter.judge(readings)
                self.silences.hear(readings)
                entry = encode(readings, findings, self.channels, self.config.gateway.id)
                self.redactor.note(readings.sightings, batch.received[-1], entry)
            except Exception:
                self.filter.undo()
                raise
        except Exception as error:  # noqa: BLE001 - told below, when it is known whose it is
            fault = error
        if fault and len(batch.topics) > 1:
            first, second = batch.halves()
            return [*self._judge(first), *self._judge(second)]
        if fault:
            told = None if 0 in batch.personal else fault  # its text may quote the message
            log.error("a message of topic %s cannot be processed", batch.topics[0], exc_info=told)
            entry = _unbearable(batch, fault)
        entry.released = batch.held
        self.decoder.remember(entry.keys)
        for letter in entry.dead[:_DEAD_LETTERS_LOGGED]:
            log.warning("dead letter: %s", letter.reason, extra={"topic": letter.topic, "source": letter.source})
        return [entry]

    async def _judge_recorded(self, batch: RawBatch, recorded: RecordedTime) -> list[Entry]:
        """The same for a replayed stream, so that its own times alone decide what comes of it."""
        entries: list[Entry] = []
        for message in batch.singles():
            for minute in recorded.reach(message.received[0]) if message.told else ():
                entries.append(self._silent(minute, recorded.began))
                entries += [counts] if (counts := self.redactor.tend(minute)) else []
            entries += self._judge(message)
            await asyncio.sleep(0)
        return [merged(entries)]

    def _silent(self, now: int, connected_since: int | None) -> Entry:
        """Who has fallen silent, or is so no longer."""
        found = self.silences.noticed(now, connected_since, self.maintenance.sensors(now))
        return Entry(events="\n".join(silence.line(self.config.gateway.id) for silence in found).encode())

    async def _commit(self, entry: Entry) -> None:
        """Appends to the spool, however long it takes: the broker holds what waits behind."""
        entry.time = self.clock.now() if self.clock.known else None
        wait = 0.5
        while True:
            try:
                await self.spool.append(entry)
            except SpoolError as error:
                self._stuck[id(entry)] = f"cannot commit, the broker keeps the messages: {error}"
                log.error("%s", self._stuck[id(entry)])  # noqa: TRY400 - told by its text
                await asyncio.sleep(wait)
                wait = min(2 * wait, 2)
            else:
                self._stuck.pop(id(entry), None)
                self._holding = self._holding or bool(entry.held)
                return

    async def _watch_clock(self) -> None:
        while True:
            await asyncio.sleep(_CLOCK_INTERVAL)
            self.clock.check()
            self.maintenance.check()
            await self._release()
            of_clock = self.clock.known and self.recorded is None
            if of_clock and (counts := self.redactor.tend(self.clock.now())):
                await self._commit(counts)

    async def _watch_silence(self) -> None:
        for seconds in itertools.count(1):
            await asyncio.sleep(_CLOCK_INTERVAL)
            if not self.ingest.connected:
                self._connected_since = None
            elif self._connected_since is None:
                self._connected_since = self.silences.clock()
            if self.clock.known and self.recorded is None and seconds % _SILENCE_INTERVAL == 0:
                entry = self._silent(self.clock.now(), self._connected_since)
                if entry.events:
                    await self._commit(entry)

    async def _release(self) -> None:
        """Once the clock is known, gives their times to the messages that waited for it, before any newer one."""
        if not (self._holding and self.clock.known):
            return
        try:
            async with self._turn:
                await self._judged.join()  # among them may be messages that are held
                while held := await self.spool.held(_RELEASED_AT_ONCE):
                    for boot, messages in itertools.groupby(held, lambda message: message.boot):
                        batch = self._dated(boot, list(messages))
                        self.redactor.redact(batch)
                        for entry in self._judge(batch):
                            await self._commit(entry)
                self._holding = False
        except SpoolError as error:
            log.error("cannot date what waited for the clock yet: %s", error)  # noqa: TRY400 - told by its text

    def _dated(self, boot: str, messages: list[Held]) -> RawBatch:
        here = boot == self.clock.boot_id  # of another run of the machine, only the latest time before it is known
        return RawBatch(
            topics=[message.topic for message in messages],
            payloads=[message.payload for message in messages],
            received=[
                self.clock.at(message.moment) if here else message.floor + message.moment for message in messages
            ],
            estimated=not here,
            held=[message.id for message in messages],
        )

    async def _report_health(self) -> None:
        while True:
            await asyncio.sleep(self.config.gateway.health_interval)
            await self._requeue()
            self._check_ledger()
            await self._commit(self._health())

    async def _requeue(self) -> None:
        """Gives dead letters another try that ``citygate spool requeue`` asks for."""
        try:
            if wanted := await self.spool.requests():
                async with self._turn:
                    gateway = self.config.gateway.id
                    way = self.redactor, self.decoder, self.filter, self.channels
                    await requeue(self.spool, *way, gateway, wanted)
        except SpoolError as error:
            log.error("cannot try dead letters again now: %s", error)  # noqa: TRY400 - told by its text

    def _check_ledger(self) -> None:
        wrong = self.spool.ledger().mismatches()
        if wrong != self._mismatches:
            self._mismatches = wrong
            for mismatch in wrong:
                log.error("the ledger does not balance: %s. Please report this as a fault of citygate", mismatch)

    def _health(self) -> Entry:
        if not self.clock.known or self.recorded is not None:
            return Entry()  # it would get a wrong time, or one among those of a recording
        return Entry(sums=health(self.config.gateway.id, self.measure(), self.clock.now()))

    def measure(self) -> Mapping[str, float | str]:
        """The agent's own health: the ledger's sums, sizes in bytes, uptime in s."""
        ledger = self.spool.ledger()
        return {
            **ledger.total,
            "messages": self._messages,
            "ledger_mismatches": len(self._mismatches),
            "stuck": int(bool(self._stuck)),
            "dead_letters": ledger.dead_letters,
            "dead_letters_dropped": ledger.dead_dropped,
            "spool_bytes": ledger.bytes,
            "disk_free_bytes": shutil.disk_usage(self.config.spool_path.parent).free,
            "rss_bytes": _rss(),
            "cpu_s": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "sensors": self.decoder.sensors,
            "sensors_silent": self.silences.silent,
            "sensors_refused": self.decoder.refused_sensors,
            "devices_undeclared": len(self.decoder.discoveries),
            "channels": len(self.channels),
            "channels_learning": self.filter.learning(),
            "times_future": self.decoder.future,
            "times_past": self.decoder.past,
            "loose": self.decoder.loose_messages,
            "personal_taken": self.redactor.taken,
            "personal_uncounted": self.redactor.uncounted,
            "clock_known": int(self.clock.known),
            "connected": int(self.ingest.connected),
            "version": __version__,
        }

    def ledger(self) -> Ledger:
        """Where every reading is."""
        return self.spool.ledger()

    def status(self) -> dict[str, object]:
        """Everything that ``citygate status`` shows."""
        ledger = self.ledger()
        alarms = [f"the ledger does not balance: {mismatch}" for mismatch in self._mismatches]
        alarms += sorted(set(self._stuck.values()))
        alarms += [self.maintenance.problem] if self.maintenance.problem else []
        return {
            "status": "alarm" if alarms else "ok",
            "alarms": alarms,
            "gateway": self.config.gateway.id,
            "broker": {
                "host": self.config.mqtt.host,
                "port": self.config.mqtt.port,
                "connected": self.ingest.connected,
                "subscriptions": self.ingest.filters,
            },
            "clock": {"known": self.clock.known, "trust": self.config.clock.trust},
            "health": dict(self.measure()),
            "loose": {source: dict(counts) for source, counts in self.decoder.loose.items()},
            "discovered": self.decoder.discoveries.report(),
            "ledger": ledger.sources,
            "outputs": [
                {**forwarder.status(), "ledger": ledger.outputs[output.name]}
                for forwarder, output in zip(self.forwarders, self.config.output, strict=True)
            ],
        }


def _ingest(config: GatewayConfig, decoder: Decoder, now: Callable[[], int]) -> Ingest:
    mqtt = config.mqtt.model_copy(update={"client_id": config.client_id})
    filters = [source.filter for source in decoder.sources]
    senders = frozenset(source.config.sender for source in decoder.sources if source.config.sender)
    if mqtt.protocol == "5":
        return Mqtt5Ingest(mqtt, filters, now=now, sender_properties=senders)
    from gateway.edge.ingest_paho import PahoIngest  # noqa: PLC0415 - loaded only for brokers that need it

    return PahoIngest(mqtt, filters, now=now)


def _unbearable(batch: RawBatch, error: Exception) -> Entry:
    payload, reason = batch.payloads[0], f"cannot be processed: {error!r}"
    if taken := batch.personal.get(0):
        payload, reason = withheld(payload), scrubbed(reason, payload, taken.known)
    letter = DeadLetter(batch.received[0], UNMATCHED, batch.topics[0], payload, reason)
    return Entry(counts={UNMATCHED: {"received": 1, "dead": 1}}, dead=[letter])


def _rss() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


async def run(config: GatewayConfig) -> None:
    """Runs a gateway until it is told to stop."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the secrets
    settle()
    await Agent(config).run()
