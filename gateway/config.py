"""Every setting of citygate, in one place.

A configuration is a TOML file. Environment variables override it: ``CITYGATE_MQTT__HOST`` is ``host`` in ``[mqtt]``,
``CITYGATE_OUTPUT__0__URL`` is ``url`` in the first ``[[output]]``. Secrets come from a file (``token_file = …``), a
systemd credential with that file's name, or the environment, and are never printed.
"""

import contextlib
import difflib
import itertools
import os
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from sensors import formats, kinds
from sensors.durations import Duration, seconds
from sensors.formats import Declared, FormatError
from sensors.kinds import Attenuated, Climatology, EventLimit, Flat, Limits, Severity, Spike, Title, expressions

ENV_PREFIX = "CITYGATE_"

_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class ConfigError(Exception):
    """A configuration cannot be used; the message names file, key path, value and what to do."""


def _size(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(\w+)", value.strip())):
        if match[2] in _SIZES:
            return int(float(match[1]) * _SIZES[match[2]])
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    msg = f"expected a size such as '512MiB' or '2GB', not {value!r}"
    raise ValueError(msg)


Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
"""Bytes, written with a unit."""


def _moment(value: object) -> object:
    moment = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(value)
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return moment
    msg = f"expected a time with its offset from UTC, such as 2026-03-01T08:00:00+08:00, not {value}"
    raise ValueError(msg)


Moment = Annotated[datetime, BeforeValidator(_moment)]
"""A date and time with its offset from UTC."""
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[\w.-]{1,64}(?!\n)$")]  # as \Z, in the grammar of JSON Schema too
"""An identifier that may stand in a topic, a tag and a file name."""


class _Section(BaseModel):
    # Python's own patterns: those of pydantic take 7 MB for what a word character is in Unicode
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, regex_engine="python-re")


class _Secrets(_Section):
    """Reads ``x`` from the file named by ``x_file``; a bare name may also be a systemd credential."""

    @model_validator(mode="before")
    @classmethod
    def _from_files(cls, data: Any) -> Any:  # noqa: ANN401 - whatever TOML holds
        if not isinstance(data, dict):
            return data
        values = dict(data)
        for name, field in cls.model_fields.items():
            file_key = f"{name}_file"
            if field.annotation != SecretStr | None or values.get(file_key) is None:
                continue
            if values.get(name) is not None:
                continue  # an environment variable wins over the file
            values[name] = _read_secret(str(values[file_key]), file_key)
        return values


def _read_secret(name: str, key: str) -> str:
    path = Path(name)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and (Path(credentials) / path.name).is_file():
        path = Path(credentials) / path.name
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        msg = f"{key}: cannot read {path}: {reason}. Put the secret in that file, readable by this user alone"
        raise ValueError(msg) from error
    if not text:
        msg = f"{key}: {path} is empty. Put the secret in that file"
        raise ValueError(msg)
    return text


class GatewaySection(_Section):
    """The gateway itself."""

    id: Name = Field(description="name of this gateway; the tag `gateway` of everything it writes")
    data_dir: Path = Field(Path("data"), description="where the spool lives; relative to this file")
    kinds_dir: Path | None = Field(
        None, description="a folder of further sensor kinds (TOML), beside the built-in ones"
    )
    maintenance: Path = Field(
        Path("maintenance.toml"), description="a file of further `[[maintenance]]`, read again whenever it changes"
    )
    health_interval: Duration = Field(10.0, description="how often the gateway's own health and ledger are stored")
    health_host: str = Field("127.0.0.1", description="address of the local health endpoint")
    health_port: Port | None = Field(8686, description="port of the local health endpoint (/health, /metrics)")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is logged")


class MqttConfig(_Secrets):
    """The broker that the sensors publish to."""

    host: str = Field("127.0.0.1", description="broker's host name or address")
    port: Port = Field(1883, description="broker's port; 8883 is usual with TLS")
    protocol: Literal["5", "3.1.1"] = Field("5", description="MQTT version; 3.1.1 for brokers that speak nothing newer")
    client_id: Name | None = Field(
        None, description="session's name at the broker; `citygate-` + gateway id by default"
    )
    username: str | None = Field(None, description="user name at the broker")
    password: SecretStr | None = Field(None, description="password; prefer password_file")
    password_file: Path | None = Field(None, description="file that holds the password")
    keep_alive: Duration = Field(60.0, description="longest silence before the link is probed")
    receive_max: int = Field(4000, ge=1, le=16384, description="most messages unacknowledged at a time (back-pressure)")
    session_expiry: Duration = Field(604800.0, description="how long the broker keeps messages for an absent gateway")
    batch_size: int = Field(2000, ge=1, le=65535, description="messages that complete a batch")
    batch_time: Duration = Field(0.2, gt=0, description="age of its first message that completes a batch")
    recorded_time: bool = Field(
        default=False,
        description="for replays: a message arrived when its property `citygate-arrival` says, and the stream's own "
        "time is that of the gateway; leave it off in service, for any publisher can set that property",
    )
    tls: bool = Field(default=False, description="encrypt the link")
    tls_ca: Path | None = Field(None, description="CA certificate; the system's CAs by default")
    tls_cert: Path | None = Field(None, description="client certificate")
    tls_key: Path | None = Field(None, description="client certificate's key")

    @model_validator(mode="after")
    def _tells_times(self) -> Self:
        if self.recorded_time and self.protocol != "5":
            msg = 'recorded_time needs protocol = "5": MQTT 3.1.1 has no properties'
            raise ValueError(msg)
        return self


_PLACES = ("{site}", "{kind}", "{sensor}")
"""What a level of a topic template can stand for."""


class _Payloads(_Section):
    """A family of topics and what their payloads mean."""

    name: Name
    topic: str
    format: str = Field("json", description="payload format: one of docs/formats, or of an installed package")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the format; see its page")
    time: str | None = Field(
        "ts", description="key of the observation time, for formats that have none of their own; else time of arrival"
    )
    rename: dict[str, str] = Field(default_factory=dict, description="payload key → quantity")
    units: dict[str, str] = Field(default_factory=dict, description="quantity → the unit in which it arrives")
    gas_at: str | None = Field(
        None,
        description="temperature and pressure at which ppb and ppm of a gas become its mass, such as "
        '`"25 °C, 1013.25 hPa"`',
    )
    personal: bool = Field(
        default=False,
        description="payloads may hold personal data anywhere: none of them is kept as a dead letter, only its size",
    )
    sender: str | None = Field(
        None,
        description="MQTT v5 user property in which the broker names the authenticated client; it must be the topic's "
        "sensor, else the message is a dead letter",
    )

    @property
    def declared(self) -> Declared:
        """What the format is told."""
        takes_time = formats.find(self.format).takes_time
        return Declared(self.time if takes_time else None, self.rename, self.options)

    @field_validator("topic")
    @classmethod
    def _topic_can_be_asked_for(cls, topic: str) -> str:
        levels = topic.split("/")
        for place, level in enumerate(levels):
            if level == "#" and place + 1 < len(levels):
                msg = "'#' stands for all further levels, so it must be the last one"
            elif level not in {*_PLACES, "+", "#"} and re.search(r"[{}+#]", level):
                msg = f"'{level}' must be a whole level: {', '.join(_PLACES)}, '+' or a last '#'"
            elif level in _PLACES and levels.count(level) > 1:
                msg = f"it has {level} twice"
            else:
                continue
            raise ValueError(msg)
        if not topic:
            msg = "it is empty"
            raise ValueError(msg)
        return topic

    @model_validator(mode="after")
    def _format_can_be_used(self) -> Self:
        try:
            formats.make(self.format, self.declared)
        except FormatError as error:
            raise ValueError(str(error)) from error
        if self.time not in {None, type(self).model_fields["time"].default} and self.declared.time is None:
            msg = f"time: payloads of the format '{self.format}' have their own time, or none: remove it"
            raise ValueError(msg)
        return self


class SourceConfig(_Payloads):
    """A family of topics and what their payloads mean."""

    name: Name = Field("city", description="name on the ledger")
    topic: str = Field(
        "city/{site}/{kind}/{sensor}", description="topic template; levels in braces, `+` and a last `#` are accepted"
    )
    devices: Path | None = Field(
        None, description="file of devices: what the sender calls a device → `kind`, `site` and `sensor`"
    )
    kind: Name | None = Field(None, description="kind of the sensors, when the topic does not tell")
    site: Name | None = Field(None, description="site of the sensors, when the topic does not tell")
    sensor: Name | None = Field(None, description="name of the sensor, when the topic does not tell")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        names_sensors = formats.make(self.format, self.declared).names_sensors
        for key in ("site", "kind", "sensor"):
            named = self.devices is not None or (key == "sensor" and names_sensors)
            if f"{{{key}}}" not in self.topic and getattr(self, key) is None and not named:
                msg = f"the topic '{self.topic}' has no {{{key}}}: add it there or set '{key}'"
                raise ValueError(msg)
        return self


class DiscoverConfig(_Payloads):
    """Topics on which devices may appear that nobody has declared yet."""

    name: Name = Field("discovered", description="name on the ledger")
    topic: str = Field(description="topic template; `{site}` and `{sensor}`, `+` and a last `#` are accepted")
    devices: Path = Field(
        Path("devices.toml"),
        description="file of devices, which need not be there yet: what the sender calls a device → `kind`, `site` and "
        "`sensor`. What any other device sends is held in the measurement `holding`",
    )
    site: Name | None = Field(None, description="site of the devices, when neither the topic nor their file tells")
    kind: ClassVar[None] = None
    sensor: ClassVar[None] = None


class LimitsConfig(_Section):
    """What no sender gets more of."""

    sensors: int = Field(65_536, ge=1, description="most sensors; messages of further ones are dead letters")
    holding: int = Field(
        1024, ge=1, description="most of them that may be undeclared (`[[discover]]`); further ones are dead letters"
    )
    quantities: int = Field(64, ge=1, description="most quantities of one sensor; further ones are dead letters")
    payload: Size = Field(2**18, description="largest payload; larger ones are dead letters, kept up to this size")
    rate: float = Field(
        50.0,
        gt=0,
        description="messages a second above which a sensor that sends a hundred times more than the others is "
        "flooding; what is beyond is counted dead",
    )


class OverrideConfig(_Section):
    """Limits of some sensors, in place of those of their kind's file. Of several that fit, the last one wins."""

    site: str = Field("*", description="sites, as a pattern with `*` and `?`")
    sensor: str = Field("*", description="sensors, as a pattern")
    kind: str = Field("*", description="kinds, as a pattern")
    quantity: str | None = Field(None, description="the quantity; all of the kind's for `interval` and `gap`")
    fail: Limits | None = Field(None, description="outside, a value fails")
    suspect: Limits | None = Field(None, description="outside, a value is suspect")
    step: float | None = Field(None, description="largest plausible change per minute")
    spike: Spike | None = Field(None, description="the spike test: `suspect`, `method`")
    flat: Flat | None = Field(
        None, description="the flat-line test: `suspect`, `fail`, `tolerance`, `exempt_below`, `exempt_above`"
    )
    attenuated: Attenuated | None = Field(
        None, description="the attenuated-signal test: `window`, `suspect`, `fail`, `exempt_below`, `exempt_above`"
    )
    climatology: Climatology | None = Field(
        None, description="what is usual when: `utc_offset`, `usual = [{ months, hours, suspect, fail }]`"
    )
    healthy: Limits | None = Field(None, description="outside, the sensor's other values are suspect")
    sensitivity: float | None = Field(
        None, ge=0, le=10, description="factor on the evidence of the adaptive detector; 0 switches it off"
    )
    events: tuple[EventLimit, ...] | None = Field(None, description="limits from which a good value is an event")
    interval: Duration | None = Field(None, gt=0, description="how often the sensor usually reports")
    gap: float | None = Field(None, ge=1, description="intervals without a value that make a gap")
    remove: tuple[
        Literal["fail", "suspect", "step", "spike", "flat", "attenuated", "climatology", "healthy", "events"], ...
    ] = Field((), description="tests that these sensors do not have")

    @property
    def limits(self) -> dict[str, Any]:
        """The keys of a quantity that are replaced, and by what; None removes one."""
        wanted = {key: getattr(self, key) for key in _LIMITS if getattr(self, key) is not None}
        return {**wanted, **{key: () if key == "events" else None for key in self.remove}}

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.limits and self.quantity is None:
            msg = f"'{next(iter(self.limits))}' is a limit of a quantity: add 'quantity'"
            raise ValueError(msg)
        if not self.limits and self.interval is None and self.gap is None:
            msg = f"changes nothing: add one of {', '.join(_LIMITS)}, interval, gap or remove"
            raise ValueError(msg)
        return self


_LIMITS = ("fail", "suspect", "step", "spike", "flat", "attenuated", "climatology", "healthy", "sensitivity", "events")


class MaintenanceConfig(_Section):
    """Sensors that are worked on for a while: their values are stored, not judged."""

    site: str = Field("*", description="sites, as a pattern with `*` and `?`")
    sensor: str = Field("*", description="sensors, as a pattern")
    kind: str = Field("*", description="kinds, as a pattern")
    since: Moment | None = Field(
        None, description="when it begins, with the offset from UTC; without it, all before `until`"
    )
    until: Moment = Field(description="when it ends, with the offset from UTC")

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if not self.model_fields_set & {"site", "sensor", "kind"}:
            msg = "names no sensors: add 'site', 'sensor' or 'kind'; all of them are sensor = \"*\""
            raise ValueError(msg)
        if self.since is not None and self.since >= self.until:
            msg = f"ends at {self.until}, before it begins at {self.since}"
            raise ValueError(msg)
        return self


class MaintenanceFile(_Section):
    """The file of ``gateway.maintenance``."""

    maintenance: tuple[MaintenanceConfig, ...] = ()


class ClockConfig(_Section):
    """When the device's clock is believed, and which times are."""

    trust: Literal["auto", "ntp", "system"] = Field(
        "auto",
        description="`ntp`: once the kernel says that the clock is synchronised; `system`: at once (it keeps time "
        "without power); `auto`: as `ntp` where a time service runs, else as `system`",
    )
    patience: Duration = Field(
        3600.0, description="longest wait for the clock; readings without a time of their own are held meanwhile"
    )
    ahead: Duration = Field(86_400.0, description="a sensor's time further ahead of the gateway's clock is flagged")
    earliest: date = Field(date(2000, 1, 1), description="a sensor's time before this day is flagged")


Class = Literal["raw", "aggregate", "quarantine", "event"]


class SpoolConfig(_Section):
    """What is kept on disk until it is delivered."""

    path: Path | None = Field(None, description="spool file; `spool.db` in data_dir by default")
    max_bytes: Size = Field(2**30, description="size at which the spool is full")
    hold: Duration = Field(
        60.0, description="how long a full spool leaves messages with the broker before it evicts anything"
    )
    evict: tuple[Class, ...] = Field(
        ("raw", "aggregate"),
        description="classes of data that a full spool evicts, in this order, oldest first, each counted; those not "
        "named follow, quarantine before event. `raw`: readings, `aggregate`: the gateway's own health and ledger",
    )


class OutputConfig(_Secrets):
    """A server that readings are forwarded to."""

    name: Name = Field("influxdb", description="name on the ledger and of its position in the spool")
    type: Literal["influxdb2", "influxdb1"] = Field(
        "influxdb2", description="`influxdb2` writes to /api/v2/write (also VictoriaMetrics), `influxdb1` to /write"
    )
    url: str = Field(
        description="server's address, such as https://influx.example.org:8086", pattern=r"^https?://[^/@\s]+"
    )
    org: str = Field("", description="organisation (influxdb2)")
    bucket: str = Field("city", description="bucket (influxdb2)")
    token: SecretStr | None = Field(None, description="token (influxdb2); prefer token_file")
    token_file: Path | None = Field(None, description="file that holds the token")
    database: str = Field("city", description="database (influxdb1)")
    username: str | None = Field(None, description="user (influxdb1)")
    password: SecretStr | None = Field(None, description="password (influxdb1); prefer password_file")
    password_file: Path | None = Field(None, description="file that holds the password")
    flush_interval: Duration = Field(1.0, gt=0, description="longest wait of a committed batch before it is sent")
    timeout: Duration = Field(10.0, gt=0, description="longest wait for the server's answer")
    batch_bytes: Size = Field(2**20, description="most line protocol a request, before compression")
    backlog_rate: Size = Field(
        2**20, description="most bytes a second, compressed, for what waited; fresh readings go beside it, first"
    )
    tls_ca: Path | None = Field(None, description="CA certificate; the system's CAs by default")
    tls_cert: Path | None = Field(None, description="client certificate")
    tls_key: Path | None = Field(None, description="client certificate's key")


class RuleConfig(_Section):
    """What raises an event beside the limits of kinds: of the city view, or of a gateway."""

    name: Name = Field(description="identifier, used once")
    title: Title = Field(description="what an operator reads, as `{ zh = …, en = …, ko = … }`")
    severity: Severity = Field(description="`blue`, `yellow`, `orange` or `red`")
    kind: str | None = Field(None, description="kind of the sensors")
    site: str = Field("*", description="sites, as a pattern with `*` and `?`")
    sensor: str = Field("*", description="sensors, as a pattern")
    quantity: str | None = Field(None, description="quantity that `above`, `below` or `change` is about")
    index: Literal["aqi", "cai", "us_aqi", "congestion", "water_class", "water_over", "noise_over"] | None = Field(
        None, description="instead of a quantity: a derived index of each site"
    )
    above: float | None = Field(None, description="from this value on")
    below: float | None = Field(None, description="from this value down")
    clear: float | None = Field(None, description="it is over when the value is back here; at the limit by default")
    change: float | None = Field(None, description="a rise of at least this much within `within`; negative: a fall")
    within: Duration | None = Field(None, gt=0, description="see `change`")
    absent: Duration | None = Field(None, gt=0, description="nothing was sent for longer")
    when: expressions.Text | None = Field(
        None, description="condition over quantities of one sensor, such as `pm25 > 75 and humidity < 80`"
    )
    hold: Duration = Field(0.0, ge=0, description="it must last so long before an event begins")
    release: Duration = Field(0.0, ge=0, description="it must be over so long before the event ends")
    sensors: int = Field(1, ge=1, description="so many sensors together; then one event for all of them")
    of: Literal["site", "town"] = Field("site", description="where those sensors are, or which place's index")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        limits = [name for name in ("above", "below", "change", "absent", "when") if getattr(self, name) is not None]
        if len(limits) != 1:
            msg = f"needs exactly one of 'above', 'below', 'change', 'absent' and 'when', and has {limits or 'none'}"
            raise ValueError(msg)
        (form,) = limits
        about = (self.quantity is not None) + (self.index is not None)
        if about != (form in {"above", "below", "change"}):
            msg = (
                f"'{form}' needs either 'quantity' or 'index'" if about != 1 else f"'{form}' names no quantity or index"
            )
            raise ValueError(msg)
        if (self.index is None) == (self.kind is None):
            msg = "'index' is of places and has no kind" if self.kind else "say of which 'kind' the sensors are"
            raise ValueError(msg)
        if (self.change is None) != (self.within is None) or self.change == 0:
            msg = "'change', which is not 0, and 'within' belong together"
            raise ValueError(msg)
        limit = self.above if self.below is None else self.below
        if self.clear is not None and (limit is None or (self.clear > limit) != (self.above is None)):
            msg = "'clear' lies below 'above', or above 'below'"
            raise ValueError(msg)
        if self.index is not None and self.sensors > 1:
            msg = "'sensors' counts sensors, and an index is of a place"
            raise ValueError(msg)
        self._known()
        return self

    def _known(self) -> None:
        kind = kinds.builtin().get(self.kind or "")
        named = [*([self.quantity] if self.quantity else ()), *(expressions.read(self.when).names if self.when else ())]
        if kind and (unknown := [name for name in named if name not in kind.quantities]):
            raise ValueError(kinds.unknown_quantity(unknown[0], kind.quantities))


def _names_differ(rules: Iterable[RuleConfig]) -> None:
    names = [rule.name for rule in rules]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        msg = f"two rules have the same name: {', '.join(twice)}"
        raise ValueError(msg)


class GatewayRuleConfig(RuleConfig):
    """A rule of a gateway, which needs nothing but its own sensors."""

    @model_validator(mode="after")
    def _its_own(self) -> Self:
        if self.index is not None:
            msg = "'index' is of places, which the city view knows: put the rule into the file of 'alerts.rules'"
            raise ValueError(msg)
        if self.absent is not None:
            msg = "'absent': a gateway tells by itself who is silent; how long is usual is set by 'gap' in [[override]]"
            raise ValueError(msg)
        if self.of == "town":
            msg = "'of' is \"site\" on a gateway; what several gateways see is a rule of the city view"
            raise ValueError(msg)
        return self


class GatewayConfig(_Section):
    """Configuration of ``citygate run``."""

    gateway: GatewaySection
    mqtt: MqttConfig = Field(default_factory=MqttConfig)
    source: tuple[SourceConfig, ...] = (SourceConfig(),)
    discover: tuple[DiscoverConfig, ...] = ()
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    clock: ClockConfig = Field(default_factory=ClockConfig)
    override: tuple[OverrideConfig, ...] = ()
    maintenance: tuple[MaintenanceConfig, ...] = ()
    rule: tuple[GatewayRuleConfig, ...] = ()
    spool: SpoolConfig = Field(default_factory=SpoolConfig)
    output: tuple[OutputConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        for key, items in (("source", (*self.source, *self.discover)), ("output", self.output)):
            names = [item.name for item in items]
            if twice := {name for name in names if names.count(name) > 1}:
                msg = f"[[{key}]] names must differ: {', '.join(sorted(twice))} is used twice"
                raise ValueError(msg)
        _names_differ(self.rule)
        return self

    @model_validator(mode="after")
    def _senders_need_properties(self) -> Self:
        for source in (*self.source, *self.discover):
            if source.sender and self.mqtt.protocol != "5":
                msg = (
                    f"[[source]] '{source.name}': sender = {source.sender!r} needs mqtt.protocol = \"5\": MQTT "
                    f"{self.mqtt.protocol} has no user properties"
                )
                raise ValueError(msg)
        return self

    @property
    def client_id(self) -> str:
        """The session's name at the broker."""
        return self.mqtt.client_id or f"citygate-{self.gateway.id}"

    @property
    def spool_path(self) -> Path:
        """The spool's file."""
        return self.spool.path or self.gateway.data_dir / "spool.db"


class ServerSection(_Section):
    """Where the city view listens."""

    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback a read token is required")
    port: Port = Field(8080, description="port to listen on")
    tls_cert: Path | None = Field(None, description="certificate chain, for https")
    tls_key: Path | None = Field(None, description="the certificate's key")


class AccessSection(_Secrets):
    """Who may write and read."""

    write_token: SecretStr | None = Field(None, description="token for /api/v2/write; prefer write_token_file")
    write_token_file: Path | None = Field(None, description="file that holds the write token")
    read_token: SecretStr | None = Field(None, description="token for readers beyond loopback; prefer read_token_file")
    read_token_file: Path | None = Field(None, description="file that holds the read token")


class StoreSection(_Secrets):
    """Where the readings are."""

    type: Literal["embedded", "influxdb1", "influxdb2"] = Field("embedded", description="the store behind the view")
    path: Path = Field(Path("data/city.db"), description="file of the embedded store; relative to this file")
    retention: Duration = Field(30 * 86400.0, description="how long the embedded store keeps single readings")
    hourly_retention: Duration = Field(
        730 * 86400.0, description="how long the embedded store keeps means, extremes and flags by the hour"
    )
    url: str = Field("http://127.0.0.1:8086", description="InfluxDB's address")
    database: str = Field("city", description="database (or bucket) to read by InfluxQL")
    username: str | None = Field(None, description="user (influxdb1)")
    password: SecretStr | None = Field(None, description="password (influxdb1); prefer password_file")
    password_file: Path | None = Field(None, description="file that holds the password")
    token: SecretStr | None = Field(None, description="token (influxdb2); prefer token_file")
    token_file: Path | None = Field(None, description="file that holds the token")


class MapSection(_Section):
    """What the map shows."""

    title: Title = Field(Title(zh="城市运行", en="City operations", ko="도시 운영"), description="name of the town")
    sensors: Path | None = Field(None, description="GeoJSON of sites and sensors")
    districts: Path | None = Field(None, description="GeoJSON of districts and waters")
    sources: Path | None = Field(
        None, description="GeoJSON of what may pollute: works, building sites, roads; see alerts.md"
    )
    basemap: Path | None = Field(None, description="PMTiles file of a base map; none is needed")
    center: tuple[float, float] | None = Field(None, description="longitude, latitude; the sensors' middle by default")
    zoom: float = Field(11.5, description="first zoom level of the map")
    timezone: str | None = Field(
        None,
        description="zone of the town, such as `Asia/Shanghai`: its days, nights and months; the machine's by default",
    )

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in available_timezones():
            msg = f"no zone '{name}'; expected a name such as Asia/Shanghai"
            raise ValueError(msg)
        return name


class GradesSection(_Section):
    """By which tables indices and grades are made."""

    tables_dir: Path | None = Field(
        None, description="folder with own tables, by the names of those that come with citygate; see grades.md"
    )


class CasesSection(_Section):
    """When cases open and close by themselves."""

    watch: bool = Field(default=True, description="open cases from alerts, faults and silences of sensors")
    public: bool = Field(default=False, description="let anyone who reaches the view report something, at `/#/report`")
    table: Path | None = Field(
        None, description="file with own departments, classes of cases and time limits; see cases.md"
    )
    open_at: Literal["blue", "yellow", "orange", "red"] = Field(
        "orange", description="least severity of an alert that opens a case"
    )
    fault_after: Duration = Field(300.0, description="how long a sensor does nothing but fail before that is a case")
    healthy_for: Duration = Field(600.0, description="how long a cause is over before its case closes by itself")


class OidcSection(_Secrets):
    """The city's single sign-on (OpenID Connect), if it has one."""

    issuer: str | None = Field(
        None, pattern=r"^https?://[^\s?#]+\Z", description="the provider, as it calls itself; without it, none"
    )
    client_id: str = Field("", description="what the provider calls this view")
    client_secret: SecretStr | None = Field(None, description="the view's secret there; prefer client_secret_file")
    client_secret_file: Path | None = Field(None, description="file that holds the secret")
    url: str = Field(
        "",
        pattern=r"^(https?://[^\s/?#]+)?\Z",
        description="this view's own address for people; the provider must allow `URL/api/v1/oidc/callback`",
    )
    title: Title = Field(
        Title(zh="统一认证", en="City account", ko="통합 계정"), description="what the button on the page says"
    )
    scope: str = Field("openid profile email", description="what is asked of the provider")
    name_claim: str = Field("preferred_username", description="claim with the name to sign in by; else `sub`")
    role_claim: str | None = Field(
        None, description="claim with a role or several, such as `groups` or `realm_access.roles`"
    )
    roles: dict[str, Literal["viewer", "operator", "dispatcher", "department", "administrator"]] = Field(
        default_factory=dict, description="which value of `role_claim` is which role here; of several, the strongest"
    )
    default_role: Literal["none", "viewer", "operator", "dispatcher", "department"] = Field(
        "none", description="role of who has none by `role_claim`; with `none` they are not let in"
    )
    districts_claim: str | None = Field(None, description="claim with the districts to which a person is held")
    departments_claim: str | None = Field(None, description="claim with the departments of a person")
    tls_ca: Path | None = Field(None, description="CA certificate of the provider; the system's CAs by default")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.issuer is None:
            return self
        if missing := [key for key in ("client_id", "url") if not getattr(self, key)]:
            msg = f"a provider needs {' and '.join(map(repr, missing))}"
            raise ValueError(msg)
        host = urlsplit(self.issuer).hostname or ""
        if self.issuer.startswith("http:") and host not in {"localhost", "127.0.0.1", "::1"}:
            msg = "issuer: an address that is not https would let others sign in"
            raise ValueError(msg)
        return self


class DatabaseSection(_Secrets):
    """Where people and their work are."""

    path: Path | None = Field(None, description="SQLite's file; `operations.db` beside `store.path` by default")
    url: SecretStr | None = Field(
        None, description="PostgreSQL instead, as `postgresql://USER:PASSWORD@HOST/NAME`; prefer url_file"
    )
    url_file: Path | None = Field(None, description="file that holds the URL")


class AlertsSection(_Section):
    """How events are put together, and where they may come from."""

    path: Path | None = Field(
        None, description="file of alerts and acknowledgements; `alerts.db` beside `store.path` by default"
    )
    rules: Path | None = Field(
        None, description="file of rules and of maintenance that the city view knows of; read again when it changes"
    )
    page_rules: Path | None = Field(
        None,
        description="file of the page's rules; `page-rules.toml` beside the file of alerts by default",
    )
    retention: Duration = Field(365 * 86400.0, description="how long ended alerts are kept")
    quiet: Duration = Field(600.0, ge=0, description="an event so soon after an alert's end opens that one again")
    sector: float = Field(60.0, gt=0, le=360, description="width of the upwind sector, degrees")
    wind_window: Duration = Field(600.0, gt=0, description="before an event, over which the wind's mean is taken")
    wind_reach_km: float = Field(15.0, gt=0, description="farthest wind sensor that speaks for a site")
    sender: str = Field(
        "citygate", pattern=r"^[^\s,<&]{1,100}\Z", description="who warns, in CAP; a name of the town's own domain"
    )
    exercise: bool = Field(default=False, description="CAP messages say that they are an exercise")
    public: bool = Field(default=False, description="CAP messages are for the public, not for those in charge alone")
    source_reach_km: float = Field(10.0, gt=0, description="farthest source that is named")


class ChannelConfig(_Secrets):
    """Where alerts are told beside the page."""

    name: Name = Field(description="identifier, used once; letters that wait are kept under it")
    type: Literal["webhook", "email", "mqtt"] = Field(description="how")
    severity: Severity = Field("blue", description="the mildest that is told")
    language: Literal["zh", "en", "ko"] = Field("en", description="of headline and text")
    retry_for: Duration = Field(86400.0, gt=0, description="how long a letter is tried again that is not taken")
    url: str | None = Field(None, pattern=r"^https?://[^/@\s]+", description="where to post (webhook)")
    secret: SecretStr | None = Field(None, description="key of the signature (webhook); prefer secret_file")
    secret_file: Path | None = Field(None, description="file that holds the key")
    host: str | None = Field(None, description="mail server (email), broker (mqtt)")
    port: Port | None = Field(None, description="its port; 587, 465 or 25 (email), 1883 or 8883 (mqtt) by default")
    tls: Literal["starttls", "tls", "none"] | None = Field(
        None, description="how the link is encrypted; `starttls` (email), `none` (mqtt) by default"
    )
    tls_ca: Path | None = Field(None, description="CA certificate; the system's CAs by default")
    username: str | None = Field(None, description="user of the mail server or the broker")
    password: SecretStr | None = Field(None, description="password; prefer password_file")
    password_file: Path | None = Field(None, description="file that holds the password")
    sender: str | None = Field(None, pattern=r"^[^\r\n]+@[^\r\n]+\Z", description="from whom (email)")
    to: tuple[Annotated[str, Field(pattern=r"^[^\s,@]+@[^\s,@]+\Z")], ...] = Field((), description="to whom (email)")
    topic: str | None = Field(None, pattern=r"^[^+#\x00]{1,200}\Z", description="where to publish (mqtt)")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"webhook": ("url",), "email": ("host", "sender", "to"), "mqtt": ("host", "topic")}
        missing = [key for key in needed[self.type] if not getattr(self, key)]
        if missing:
            msg = f"a channel of type '{self.type}' needs {' and '.join(map(repr, missing))}"
            raise ValueError(msg)
        if self.type == "mqtt" and self.tls == "starttls":
            msg = "MQTT has no 'starttls'; use 'tls'"
            raise ValueError(msg)
        return self

    @property
    def link(self) -> Literal["starttls", "tls", "none"]:
        """How the link is encrypted."""
        return self.tls or ("starttls" if self.type == "email" else "none")


class CityRuleConfig(RuleConfig):
    """A rule of the city view."""

    enabled: bool = Field(default=True, description="whether it is in force")


class RulesFile(_Section):
    """The file of ``alerts.rules``."""

    rule: tuple[CityRuleConfig, ...] = ()
    maintenance: tuple[MaintenanceConfig, ...] = ()

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        _names_differ(self.rule)
        return self


class CityConfig(_Section):
    """Configuration of ``citygate city``."""

    server: ServerSection = Field(default_factory=ServerSection)
    access: AccessSection = Field(default_factory=AccessSection)
    store: StoreSection = Field(default_factory=StoreSection)
    map: MapSection = Field(default_factory=MapSection)
    grades: GradesSection = Field(default_factory=GradesSection)
    database: DatabaseSection = Field(default_factory=DatabaseSection)
    oidc: OidcSection = Field(default_factory=OidcSection)
    alerts: AlertsSection = Field(default_factory=AlertsSection)
    channel: tuple[ChannelConfig, ...] = ()
    cases: CasesSection = Field(default_factory=CasesSection)

    @model_validator(mode="after")
    def _channels_differ(self) -> Self:
        names = [channel.name for channel in self.channel]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            msg = f"two channels have the same name: {', '.join(twice)}"
            raise ValueError(msg)
        return self


_Model = typing.TypeVar("_Model", bound=BaseModel)


def load(
    path: Path,
    model: type[_Model],
    environ: Mapping[str, str] = os.environ,
    change: Callable[[dict[str, Any]], None] = lambda _: None,
) -> _Model:
    """Reads a configuration file.

    Args:
        path: The TOML file; relative paths in it are taken from its folder.
        model: ``GatewayConfig`` or ``CityConfig``.
        environ: Overrides, ``CITYGATE_SECTION__KEY``.
        change: May change the tree of settings, whose paths are absolute by then, before it is checked.

    Returns:
        The validated configuration, with absolute paths and secrets read.

    Raises:
        ConfigError: With file, key path, value, and the nearest valid key.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        msg = f"{path}: cannot read the configuration: {error.strerror}"
        raise ConfigError(msg) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"{path}: not valid TOML: {error}"
        raise ConfigError(msg) from error
    _override(data, model, environ)
    _absolute(data, model, path.resolve().parent)
    change(data)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [item for item in error.errors() if item["type"] != "too_short" or error.error_count() == 1]
        lines = [f"{path}: {_explain(problem, data, model)}" for problem in problems]
        raise ConfigError("\n".join(lines)) from None


def without_secrets(data: dict[str, Any]) -> None:
    """Takes the names of secret files out of a tree of settings, for who reads them where those files are not."""
    outputs = data.get("output")
    for section in (data.get("mqtt"), *(outputs if isinstance(outputs, list) else ())):
        if isinstance(section, dict):
            for key in ("password_file", "token_file"):
                section.pop(key, None)


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Lists every key of a configuration model.

    Yields:
        Key path, such as ``output[].url``, and pydantic's field.
    """
    for name, field in model.model_fields.items():
        inner, many = _inner_model(field.annotation)
        if inner is not None and inner is not Title:
            yield from fields(inner, f"{prefix}{name}[]." if many else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def masked(config: BaseModel) -> dict[str, Any]:
    """The effective configuration with every secret masked, as plain TOML values."""

    def plain(value: object) -> Any:  # noqa: ANN401 - a tree of TOML values
        match value:
            case SecretStr():
                return "********"
            case BaseModel():
                return {
                    key: f"{item:.12g}s" if _is_duration(field) and item is not None else plain(item)
                    for key, field in type(value).model_fields.items()
                    for item in [getattr(value, key)]
                }
            case dict():
                return {key: plain(item) for key, item in value.items()}
            case tuple() | list():
                return [plain(item) for item in value]
            case Path() | date():
                return str(value)
            case _:
                return value

    tree: dict[str, Any] = plain(config)
    return tree


def written(config: BaseModel) -> dict[str, Any]:
    """A part of a configuration as somebody would write it: what is as by default is left out."""
    tree = masked(config)
    for key, field in type(config).model_fields.items():
        if tree[key] is None or getattr(config, key) == field.default:
            del tree[key]
        elif _is_duration(field):
            tree[key] = _shortest(getattr(config, key))
    return tree


def _shortest(seconds: float) -> str:
    """A duration in its largest unit that leaves no fraction."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0 and seconds:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.12g}s"


def _is_duration(field: FieldInfo) -> bool:
    parts = (getattr(part, "__metadata__", ()) for part in typing.get_args(field.annotation))  # of one that may be None
    said = itertools.chain(field.metadata, *parts)
    return any(isinstance(item, BeforeValidator) and item.func is seconds for item in said)


def _inner_model(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if typing.get_origin(annotation) is tuple:
        item = typing.get_args(annotation)[0]
        if isinstance(item, type) and issubclass(item, BaseModel):
            return item, True
    return None, False


def _override(data: dict[str, Any], model: type[BaseModel], environ: Mapping[str, str]) -> None:
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX) or "__" not in variable:
            continue
        keys = variable.removeprefix(ENV_PREFIX).lower().split("__")
        if keys[0] not in model.model_fields:
            continue  # a setting of the other program
        place: Any = data
        for key, following in itertools.pairwise(keys):
            if isinstance(place, list):
                place = place[int(key)] if key.isdigit() and int(key) < len(place) else {}
            else:
                place = place.setdefault(key, [{}] if following.isdigit() else {})
        if isinstance(place, dict):
            place[keys[-1]] = _value(text)


def _value(text: str) -> object:
    if text.startswith(("[", "{")):
        try:
            return tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            return text
    return text  # pydantic reads numbers and booleans from text


def _absolute(data: object, model: type[BaseModel], folder: Path) -> None:
    if not isinstance(data, dict):
        return
    for name, field in model.model_fields.items():
        inner, many = _inner_model(field.annotation)
        if inner is not None and inner is not Title:
            for item in data.get(name, []) if many else [data.setdefault(name, {})]:
                _absolute(item, inner, folder)
        elif Path in (field.annotation, *typing.get_args(field.annotation)):
            value = data.get(name, field.default)
            if isinstance(value, str | Path):
                data[name] = str(folder / value)


def _explain(problem: Any, data: object, model: type[BaseModel]) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    loc = problem["loc"]
    key = ""
    for part in loc:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    if problem["type"] == "extra_forbidden":
        known = _keys_at(model, loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if problem["type"] == "missing":
        inner, many = _inner_model(model.model_fields[key].annotation) if key in model.model_fields else (None, False)
        what = "" if inner is None else f" a section [[{key}]]" if many else f" a section [{key}]"
        return f"{key}: missing; add{what or ' it'}"
    value: Any = data
    for part in loc:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
            break
    secret = bool({*loc} & {"token", "password", "secret", "client_secret", "write_token", "read_token"})
    shown = "" if not loc or value is None or isinstance(value, dict | list) or secret else f" = {value!r}"
    return f"{key}{shown}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    current = model
    for part in loc:
        if isinstance(part, str) and part in current.model_fields:
            annotation = current.model_fields[part].annotation
            models = [_inner_model(item)[0] for item in (annotation, *typing.get_args(annotation))]
            current = next(filter(None, models), current)
    return list(current.model_fields)


__all__ = [
    "AccessSection",
    "AlertsSection",
    "ChannelConfig",
    "CityConfig",
    "CityRuleConfig",
    "ConfigError",
    "GatewayConfig",
    "GatewaySection",
    "MaintenanceConfig",
    "MaintenanceFile",
    "MapSection",
    "MqttConfig",
    "OidcSection",
    "OutputConfig",
    "OverrideConfig",
    "RuleConfig",
    "RulesFile",
    "ServerSection",
    "SourceConfig",
    "SpoolConfig",
    "StoreSection",
    "fields",
    "load",
    "masked",
    "without_secrets",
]
