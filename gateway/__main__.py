"""The command line: ``citygate``.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args

import typer

from gateway import __version__
from gateway.config import CityConfig, Class, ConfigError, GatewayConfig, load

app = typer.Typer(
    name="citygate",
    help="An edge gateway for a town and its countryside: judges every sensor reading on the device, loses none.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Result = TypeVar("_Result")
Config = Annotated[Path, typer.Option("--config", "-c", help="Configuration file (TOML).")]
Broker = Annotated[str, typer.Option(help="Broker as HOST:PORT.")]


def _fail(message: object, code: int) -> NoReturn:
    typer.echo(f"citygate: {message}", err=True)
    raise typer.Exit(code)


def _seconds(text: str) -> float:
    from sensors.durations import seconds  # noqa: PLC0415

    try:
        return float(text) if text.replace(".", "", 1).isdigit() else seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Duration = Annotated[
    float | None, typer.Option(parser=_seconds, metavar="SECONDS", help="Stop after this long, such as 120 or 2m.")
]


# how a recording is read: replay, inject and evaluate
TimeColumn = Annotated[str | None, typer.Option(help="Column of the time; found by its usual names.")]
SensorColumn = Annotated[str | None, typer.Option(help="Column of the sensor; found by its usual names.")]
Site = Annotated[str, typer.Option(help="Site of all rows.")]
SiteColumn = Annotated[str | None, typer.Option(help="Column of the site.")]
KindName = Annotated[str | None, typer.Option("--kind", help="Kind of all rows; the best fit by default.")]
KindColumn = Annotated[str | None, typer.Option(help="Column of the kind.")]
Columns = Annotated[list[str] | None, typer.Option(metavar="NAME=QUANTITY", help="Rename a column.")]
Ignore = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a column out.")]
Missing = Annotated[list[str] | None, typer.Option(metavar="TEXT", help="Text that means no value.")]
Timezone = Annotated[str | None, typer.Option(metavar="ZONE", help="Zone of times without offset.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Count unreadable rows instead of stopping.")]


@contextmanager
def _usage_errors(*kinds: type[Exception]) -> Iterator[None]:
    caught: tuple[type[Exception], ...] = (ConfigError, *kinds)
    try:
        yield
    except caught as error:
        _fail(error, 2)


def _extra(import_it: Callable[[], _Result], extra: str) -> _Result:
    try:
        return import_it()
    except ModuleNotFoundError as error:
        _fail(f"this command needs the package '{error.name}': install it with  pip install 'citygate[{extra}]'", 2)


@app.command(epilog="Example: citygate demo --port 18080 --duration 120")
def demo(  # noqa: PLR0913, PLR0917 - one parameter an option
    port: Annotated[int, typer.Option(help="Port of the city view.")] = 8080,
    mqtt_port: Annotated[int, typer.Option(help="Port of the broker for MQTT 3.1.1.")] = 1883,
    mqtt5_port: Annotated[int, typer.Option(help="Port of the broker for MQTT 5.")] = 1884,
    health_port: Annotated[int, typer.Option(help="Port of the gateway's health endpoint.")] = 8686,
    duration: Duration = None,
    seed: Annotated[int, typer.Option(help="Seed of the simulated town.")] = 1,
    data: Annotated[Path | None, typer.Option(help="Data folder; a temporary one by default.")] = None,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the data folder.")] = False,
) -> None:
    """Run a simulated town, a broker, a gateway and the city view on this machine.

    Smoke raises an alert after half a minute and its case is closed after four; a stuck sensor has its maintenance case
    from the second to the fourth minute. Nothing needs to be touched: docs/demo.md has the whole course.
    """

    def needed() -> None:
        import fastapi  # noqa: F401, PLC0415
        import iotcore  # noqa: F401, PLC0415
        import uvicorn  # noqa: F401, PLC0415

    _extra(needed, "demo")
    from gateway.demo import DemoError, Ports, run  # noqa: PLC0415

    try:
        asyncio.run(
            run(Ports(port, mqtt_port, mqtt5_port, health_port), duration=duration, seed=seed, keep=keep, data=data)
        )
    except DemoError as error:
        _fail(error, 1)


@app.command(epilog="Example: citygate run -c configs/gateway.toml")
def run(config: Config) -> None:
    """Run a gateway: broker to spool to InfluxDB, until SIGTERM or Ctrl-C."""
    from gateway.logs import start  # noqa: PLC0415

    with _usage_errors():
        settings = load(config, GatewayConfig)
    start(settings.gateway.log_level)
    from gateway.edge.agent import run as run_agent  # noqa: PLC0415
    from gateway.edge.source import SourceError  # noqa: PLC0415
    from gateway.edge.spool import SpoolError  # noqa: PLC0415
    from sensors.kinds import KindError  # noqa: PLC0415

    with _usage_errors(SourceError, KindError):
        try:
            asyncio.run(run_agent(settings))
        except (SpoolError, OSError) as error:
            _fail(error, 1)


@app.command(epilog="Example: citygate city -c configs/city.toml")
def city(config: Config) -> None:
    """Run the city operations view, until SIGTERM or Ctrl-C."""
    with _usage_errors():
        settings = load(config, CityConfig)

    def serve() -> Callable[[CityConfig], None]:
        from gateway.city.serve import main  # noqa: PLC0415

        return main

    main = _extra(serve, "city")
    from gateway.logs import start  # noqa: PLC0415

    start("info")
    with _usage_errors():
        try:
            main(settings)
        except OSError as error:
            _fail(error, 1)


@app.command(epilog="Example: citygate simulate --broker 127.0.0.1:1883 --speed 60 --truth truth.jsonl")
def simulate(  # noqa: PLR0913, PLR0917 - one parameter an option
    broker: Broker = "127.0.0.1:1883",
    seed: Annotated[int, typer.Option(help="Same seed, script and start: same messages.")] = 1,
    speed: Annotated[float, typer.Option(help="How fast the simulated clock runs.")] = 1.0,
    interval: Annotated[
        float | None, typer.Option(parser=_seconds, metavar="SECONDS", help="Between two readings of a sensor.")
    ] = None,
    duration: Duration = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="Where the simulated clock starts (RFC 3339); now by default.")
    ] = None,
    script: Annotated[str, typer.Option(help="Faults and true events: 'demo', 'none' or a TOML file.")] = "demo",
    truth: Annotated[Path | None, typer.Option(help="Write what the script does to this file (JSON lines).")] = None,
    registry: Annotated[Path | None, typer.Option(help="Write the sensors' places to this file (GeoJSON).")] = None,
    username: Annotated[str | None, typer.Option(help="User at the broker.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the password at the broker.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="Use TLS and trust this CA.")] = None,
    *,
    tls: Annotated[bool, typer.Option("--tls", help="Use TLS and trust the system's CAs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print messages instead of publishing them.")] = False,
) -> None:
    """Publish a simulated town's sensors: plausible days, scripted faults and true events."""
    from gateway.simulate import main as run_town  # noqa: PLC0415

    try:
        begin = datetime.fromisoformat(start).astimezone() if start else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--start") from error
    raise typer.Exit(
        run_town(
            broker_address=broker,
            seed=seed,
            speed=speed,
            interval=interval,
            duration=duration,
            start=begin,
            script=script,
            truth=truth,
            registry=registry,
            username=username,
            password_file=password_file,
            tls=tls,
            tls_ca=tls_ca,
            dry_run=dry_run,
        )
    )


def _bytes(text: str) -> int:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    from gateway.config import Size  # noqa: PLC0415

    try:
        return TypeAdapter(Size).validate_python(text)
    except ValidationError as error:
        msg = f"expected a size such as '512MiB' or '2GB', not {text!r}"
        raise typer.BadParameter(msg) from error


@app.command(epilog="Example: citygate record town.cgrec --broker 127.0.0.1:1883 --topic 'city/#' --duration 1h")
def record(  # noqa: PLR0913, PLR0917 - one parameter an option
    file: Annotated[Path, typer.Argument(help="The recording to write, such as town.cgrec.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A gateway's configuration: its broker and its sources.")
    ] = None,
    broker: Annotated[str | None, typer.Option(help="Broker as HOST:PORT; 127.0.0.1:1883 by default.")] = None,
    topic: Annotated[
        list[str] | None, typer.Option(metavar="FILTER", help="Topics to record; all by default. Can be repeated.")
    ] = None,
    duration: Duration = None,
    max_size: Annotated[
        int | None, typer.Option(parser=_bytes, metavar="SIZE", help="Stop when the file is as large, such as 2GB.")
    ] = None,
    client_id: Annotated[
        str | None, typer.Option(help="Name of a session that the broker keeps until the next time.")
    ] = None,
    username: Annotated[str | None, typer.Option(help="User at the broker.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the password at the broker.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="Use TLS and trust this CA.")] = None,
    *,
    tls: Annotated[bool, typer.Option("--tls", help="Use TLS and trust the system's CAs.")] = False,
    append: Annotated[bool, typer.Option("--append", help="Go on with a recording that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Record what a broker delivers, byte for byte, until SIGTERM, Ctrl-C, or as long as asked for.

    A message is acknowledged when it is on the disk. What is personal is taken out before.
    """
    from gateway.edge.source import SourceError  # noqa: PLC0415
    from gateway.publish import PublishError  # noqa: PLC0415
    from gateway.publish import broker as read_broker  # noqa: PLC0415
    from gateway.record import Recorded, RecordError  # noqa: PLC0415
    from gateway.record import main as run_record  # noqa: PLC0415
    from sensors.kinds import KindError  # noqa: PLC0415

    with _usage_errors(PublishError, RecordError, SourceError, KindError, ValueError):
        if config is None:
            address = read_broker(
                broker or "127.0.0.1:1883", username=username, password_file=password_file, tls=tls, tls_ca=tls_ca
            )
            source = Recorded.of_broker(address, topic or ["#"], tls_ca=tls_ca, client_id=client_id)
        elif broker or username or password_file or tls or tls_ca:
            _fail("with -c the configuration says which broker, and how: leave the broker's options out", 2)
        else:
            source = Recorded.of_gateway(load(config, GatewayConfig), topic or [], client_id=client_id)
    raise typer.Exit(run_record(file, source, append=append, duration=duration, max_size=max_size, as_json=as_json))


CsvSite = Annotated[str | None, typer.Option(help="Site of all rows; 'replay' by default.")]


@app.command(epilog="Example: citygate replay town.cgrec --broker 127.0.0.1:1883 --speed 60 --from 2h --to 3h")
def replay(  # noqa: PLR0913, PLR0917 - one parameter an option
    file: Annotated[Path, typer.Argument(help="A recording, or a CSV: a column a quantity, or quantity and value.")],
    broker: Broker = "127.0.0.1:1883",
    speed: Annotated[str, typer.Option(metavar="N|max", help="Times real time, or as fast as possible.")] = "1",
    topic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOPIC",
            help="Recording: a filter, play only these; can be repeated. "
            "CSV: a template, city/{site}/{kind}/{sensor} by default.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Messages to send at most.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Recording: from here (RFC 3339, or a span: 90s, 2h).")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Recording: up to here, in the same way.")] = (
        None
    ),
    loop: Annotated[int, typer.Option(min=0, metavar="N", help="Recording: play it N times; 0: until Ctrl-C.")] = 1,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Recording, --shift-to-now: move times in these sources' JSON, too."),
    ] = None,
    time_column: TimeColumn = None,
    sensor_column: SensorColumn = None,
    site: CsvSite = None,
    site_column: SiteColumn = None,
    kind: KindName = None,
    kind_column: KindColumn = None,
    column: Columns = None,
    ignore: Ignore = None,
    missing: Missing = None,
    timezone: Timezone = None,
    username: Annotated[str | None, typer.Option(help="User at the broker.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the password at the broker.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="Use TLS and trust this CA.")] = None,
    *,
    tls: Annotated[bool, typer.Option("--tls", help="Use TLS and trust the system's CAs.")] = False,
    recorded_time: Annotated[
        bool, typer.Option("--recorded-time", help="Recording: tell when each message arrived, for mqtt.recorded_time.")
    ] = False,
    shift_to_now: Annotated[bool, typer.Option("--shift-to-now", help="Let the last reading be of now.")] = False,
    skip_bad: SkipBad = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Publish a recorded stream: at its own pace, N times faster, or as fast as the broker takes it.

    What citygate record wrote is sent as it was recorded. Of a CSV, each row becomes a message.
    """
    from gateway.replay_recording import is_recording  # noqa: PLC0415

    of_csv = {
        "--time-column": time_column,
        "--sensor-column": sensor_column,
        "--site": site,
        "--site-column": site_column,
        "--kind": kind,
        "--kind-column": kind_column,
        "--column": column,
        "--ignore": ignore,
        "--missing": missing,
        "--timezone": timezone,
        "--skip-bad": skip_bad,
    }
    of_recording = {"--from": start, "--to": end, "--loop": loop != 1, "-c": config, "--recorded-time": recorded_time}
    recording = is_recording(file)
    if foreign := [option for option, value in (of_csv if recording else of_recording).items() if value]:
        _fail(f"{foreign[0]} is of {'CSV files' if recording else 'recordings'}; {file} is none", 2)
    if recording:
        if config is not None and not shift_to_now:
            _fail("-c says what --shift-to-now moves: add that, or leave it out", 2)
        _replay_recording(
            file,
            (broker, username, password_file, tls, tls_ca),
            speed=speed,
            start=start,
            end=end,
            topics=tuple(topic or ()),
            limit=limit,
            rounds=loop,
            recorded_time=recorded_time,
            shift_to_now=shift_to_now,
            config=config,
            as_json=as_json,
        )
    if len(topic or ()) > 1:
        _fail("--topic is a template, and there can be one", 2)
    from gateway.replay import main as run_replay  # noqa: PLC0415

    raise typer.Exit(
        run_replay(
            file,
            broker_address=broker,
            speed=speed,
            time_column=time_column,
            sensor_column=sensor_column,
            site=site or "replay",
            site_column=site_column,
            kind=kind,
            kind_column=kind_column,
            columns=tuple(column or ()),
            ignore=tuple(ignore or ()),
            missing=tuple(missing or ()),
            timezone=timezone,
            topic=topic[0] if topic else "city/{site}/{kind}/{sensor}",
            shift_to_now=shift_to_now,
            limit=limit,
            skip_bad=skip_bad,
            username=username,
            password_file=password_file,
            tls=tls,
            tls_ca=tls_ca,
            as_json=as_json,
        )
    )


def _replay_recording(
    file: Path,
    address: tuple[str, str | None, Path | None, bool, Path | None],
    *,
    speed: str,
    config: Path | None,
    **options: Any,  # noqa: ANN401 - those of the command
) -> NoReturn:
    from gateway.edge.source import SourceError  # noqa: PLC0415
    from gateway.publish import PublishError  # noqa: PLC0415
    from gateway.publish import broker as read_broker  # noqa: PLC0415
    from gateway.replay import pace_of  # noqa: PLC0415
    from gateway.replay_recording import main as run_recording  # noqa: PLC0415
    from sensors.kinds import KindError  # noqa: PLC0415

    at, username, password_file, tls, tls_ca = address
    with _usage_errors(PublishError, SourceError, KindError, ValueError):
        target = read_broker(at, username=username, password_file=password_file, tls=tls, tls_ca=tls_ca)
        settings = None if config is None else load(config, GatewayConfig)
        raise typer.Exit(run_recording(file, target, pace=pace_of(speed), config=settings, **options))


recording_app = typer.Typer(
    help="Say what a recording holds; make one of CSV or line protocol, or these and Parquet of one.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Example: citygate recording info town.cgrec",
)
app.add_typer(recording_app, name="recording")
File = Annotated[Path, typer.Argument(metavar="FILE", help="The recording.")]


@recording_app.command("info", epilog="Example: citygate recording info town.cgrec --json")
def recording_info(
    file: File, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False
) -> None:
    """Say what a recording holds: counts, span, topics, sizes, damage. Reads all of it; exit 1 if it is damaged.

    That the end of the last block is missing, after a crash, is said, and no damage.
    """
    from gateway.recordings import info, show  # noqa: PLC0415
    from sensors.stream import StreamError  # noqa: PLC0415

    with _usage_errors(StreamError):
        found = info(file)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        show(found)
    if any(not damage["at_end"] for damage in found["damage"]):
        raise typer.Exit(1)


@recording_app.command("import", epilog="Example: citygate recording import river.csv river.cgrec --kind water")
def recording_import(  # noqa: PLR0913, PLR0917 - one parameter an option
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="CSV, plain or gzip'd, or line protocol.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recording to write.")],
    lines: Annotated[
        Literal["ns", "us", "ms", "s"] | None,
        typer.Option(metavar="PRECISION", help="SOURCE is line protocol with times in ns, us, ms or s."),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(help="Template: city/{site}/{kind}/{sensor}; of lines influx/{measurement}, and names of tags."),
    ] = None,
    time_column: TimeColumn = None,
    sensor_column: SensorColumn = None,
    site: CsvSite = None,
    site_column: SiteColumn = None,
    kind: KindName = None,
    kind_column: KindColumn = None,
    column: Columns = None,
    ignore: Ignore = None,
    missing: Missing = None,
    timezone: Timezone = None,
    *,
    skip_bad: SkipBad = False,
) -> None:
    """Make a recording of a CSV, as replay publishes it, or of line protocol, a message a line.

    The time of a row or line becomes its time of arrival.
    """
    from gateway.recordings import ImportFileError, check_topic, import_csv, import_lines  # noqa: PLC0415
    from sensors.recording import RecordingError  # noqa: PLC0415
    from sensors.stream import StreamError  # noqa: PLC0415

    layout = {
        "time": time_column,
        "sensor": sensor_column,
        "site_column": site_column,
        "kind": kind,
        "kind_column": kind_column,
        "columns": column,
        "ignore": ignore,
        "missing": missing,
        "timezone": timezone,
    }
    with _usage_errors(ValueError, RecordingError, ImportFileError):
        try:
            if lines is not None:
                if topic is not None:
                    check_topic(topic)
                if any((*layout.values(), site)):
                    _fail("options of columns are of CSV files", 2)
                done = import_lines(source, file, topic, lines, skip_bad=skip_bad)
            else:
                given = {key: value for key, value in layout.items() if value}
                done = import_csv(source, file, topic, {**given, "site": site or "replay", "skip_bad": skip_bad})
        except StreamError as error:
            _fail(error, 1)
    typer.echo(f"{file}: {done.messages:,} messages, {done.bad:,} unreadable, {file.stat().st_size:,} bytes")


@recording_app.command("export", epilog="Example: citygate recording export town.cgrec town.parquet -c gateway.toml")
def recording_export(  # noqa: PLR0913, PLR0917 - one parameter an option
    file: File,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Where to, .csv, .lp or .parquet; - is stdout.")],
    form: Annotated[
        Literal["csv", "line", "parquet"] | None, typer.Option("--format", "-f", help="Its form, if not by its name.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="A gateway's configuration: export the readings of its sources instead."),
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(metavar="FILTER", help="Only these topics. Can be repeated.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="From here: RFC 3339, or 90s, 2h.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to here, in the same way.")] = None,
) -> None:
    """Write a recording as CSV, line protocol or Parquet: its messages, or with -c the readings in them, unjudged."""
    from gateway.edge.source import SourceError  # noqa: PLC0415
    from gateway.export import ExportError, export, form_of  # noqa: PLC0415
    from gateway.play import wanted  # noqa: PLC0415
    from gateway.replay_recording import moment_of  # noqa: PLC0415
    from sensors.kinds import KindError  # noqa: PLC0415
    from sensors.stream import Reader, StreamError  # noqa: PLC0415

    with _usage_errors(ExportError, StreamError, SourceError, KindError, ValueError), Reader(file) as reader:
        summary = reader.summary()
        target = form_of(output, form)
        settings = None if config is None else load(config, GatewayConfig)
        window = moment_of(start, "from", summary), moment_of(end, "to", summary)
        topics = wanted(topic or ())
        written, unread = _extra(
            lambda: export(reader, output, target, config=settings, start=window[0], end=window[1], wanted=topics),
            "parquet",
        )
        damage = reader.damage
    typer.echo(f"{output}: {written:,} rows" + (f", {unread:,} messages unreadable" if unread else ""), err=True)
    for one in damage:
        typer.echo(f"citygate: {file}: {one}", err=True)
    if any(not one.at_end for one in damage):
        raise typer.Exit(1)


@app.command(epilog="Example: citygate check -c configs/gateway.toml")
def check(
    config: Config, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False
) -> None:
    """Validate a configuration and print the effective one, secrets masked."""
    from gateway.check import check as check_config  # noqa: PLC0415
    from gateway.edge.source import SourceError  # noqa: PLC0415
    from sensors.kinds import KindError  # noqa: PLC0415

    with _usage_errors(SourceError, KindError):
        typer.echo(check_config(config, as_json=as_json))


@app.command(epilog="Example: citygate decode --format json --topic city/north/air/a1 payload.json")
def decode(  # noqa: PLR0913, PLR0917 - one parameter an option
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="One payload each, in the order of arrival; - is stdin."),
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", "-f", metavar="NAME", help="Format of the payloads; --list shows all.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A gateway's configuration, for its sources, instead.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="NAME", help="With -c: the source; the one of the topic by default.")
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="Topic of the payloads; repeated, one for each of them.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Kind of the sensors; the topic's or the best fit by default.")
    ] = None,
    option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the format.")] = None,
    rename: Annotated[list[str] | None, typer.Option(metavar="NAME=QUANTITY", help="Rename a value.")] = None,
    unit: Annotated[
        list[str] | None, typer.Option(metavar="QUANTITY=UNIT", help="Unit in which a quantity is sent.")
    ] = None,
    gas_at: Annotated[
        str | None, typer.Option(metavar="TEXT", help='For ppb and ppm of a gas, such as "25 °C, 1013.25 hPa".')
    ] = None,
    received: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time of arrival (RFC 3339); now by default.")
    ] = None,
    *,
    as_hex: Annotated[bool, typer.Option("--hex", help="The files hold hexadecimal text.")] = False,
    as_base64: Annotated[bool, typer.Option("--base64", help="The files hold base64 text.")] = False,
    list_formats: Annotated[bool, typer.Option("--list", help="List the formats and their options.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one line a payload.")] = False,
) -> None:
    """Show what a payload becomes, step by step: bytes, reading, answers, line protocol or dead letter.

    Exit 1 if some of it could not be read.
    """
    from gateway import decode as way  # noqa: PLC0415
    from gateway.edge.source import SourceError  # noqa: PLC0415
    from sensors.formats import FormatError  # noqa: PLC0415
    from sensors.kinds import KindError  # noqa: PLC0415

    with _usage_errors(way.UsageError, FormatError, SourceError, KindError):
        if list_formats:
            listed = way.catalogue()
            if as_json:
                typer.echo(json.dumps(listed, indent=2, ensure_ascii=False, default=str))
            else:
                way.show_catalogue(listed)
            return
        messages = way.messages(
            files or (), topic or (), received, encoding="hex" if as_hex else "base64" if as_base64 else None
        )
        if (format_name is None) == (config is None):
            _fail("choose one: --format NAME, or -c FILE with a gateway's sources", 2)
        if config is not None:
            if kind or option or rename or unit or gas_at:
                _fail(
                    "--kind, --option, --rename, --unit and --gas-at belong to --format; with -c the source declares "
                    "them",
                    2,
                )
            path = way.of_gateway(load(config, GatewayConfig), source, messages[0])
        else:
            assert format_name is not None  # noqa: S101 - for the type checker
            path = way.declared(
                format_name,
                messages[0],
                kind=kind,
                options=option or (),
                renames=rename or (),
                units=unit or (),
                gas_at=gas_at,
            )
        whole = True
        for message in messages:
            shown = path.go(message)
            whole &= shown.whole
            if as_json:
                typer.echo(way.as_json(shown))
            else:
                way.show(shown)
    if not whole:
        raise typer.Exit(1)


@app.command(epilog="Example: citygate status -c /etc/citygate/gateway.toml --json")
def status(
    config: Config, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False
) -> None:
    """Show how a gateway on this machine is: link, ledger, outputs, backlog. Exit 1 if it does not run."""
    from gateway.status import StatusError, fetch, show  # noqa: PLC0415

    with _usage_errors():
        settings = load(config, GatewayConfig)
    try:
        state = fetch(settings)
    except StatusError as error:
        _fail(error, 1)
    if as_json:
        typer.echo(json.dumps(state, indent=2))
    else:
        show(state)


spool_app = typer.Typer(
    help="Look into a gateway's spool, send what is in it, and give dead letters another try.",
    rich_markup_mode=None,
    epilog="Example: citygate spool -c /etc/citygate/gateway.toml",
)
app.add_typer(spool_app, name="spool")
SpoolJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def _data_class(text: str) -> str:
    if text in get_args(Class):
        return text
    msg = f"expected one of {', '.join(get_args(Class))}, not {text!r}"
    raise typer.BadParameter(msg)


@contextmanager
def _spool_errors() -> Iterator[None]:
    from gateway.edge.spool import SpoolError  # noqa: PLC0415
    from gateway.spool import SpoolCommandError  # noqa: PLC0415

    try:
        yield
    except (SpoolCommandError, SpoolError) as error:
        _fail(error, 1)


def _gateway(config: Path) -> GatewayConfig:
    with _usage_errors():
        return load(config, GatewayConfig)


@spool_app.callback(invoke_without_command=True)
def spool(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file (TOML).")] = None,
    *,
    as_json: SpoolJson = False,
) -> None:
    """Show what a gateway's spool holds, as count does; with a command: look into it, send it, mend it."""
    if context.invoked_subcommand is None:
        if config is None:
            _fail("missing option '--config' / '-c'", 2)
        spool_count(config, as_json=as_json)
    elif config is not None or as_json:
        _fail(f"put the options behind the command: citygate spool {context.invoked_subcommand} -c FILE …", 2)


@spool_app.command("count", epilog="Example: citygate spool count -c /etc/citygate/gateway.toml --json")
def spool_count(config: Config, *, as_json: SpoolJson = False) -> None:
    """Show batches, points, readings and bytes by class and by output, dead letters, and the ledger with its check.

    Exit 1 if the ledger does not balance.
    """
    from gateway.spool import count  # noqa: PLC0415

    settings = _gateway(config)
    with _spool_errors():
        balanced = count(settings, as_json=as_json)
    if not balanced:
        raise typer.Exit(1)


@spool_app.command("list", epilog="Example: citygate spool list -c gateway.toml --dead --limit 50")
def spool_list(
    config: Config,
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most, the newest.")] = 20,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="Show dead letters instead of batches.")] = False,
    held: Annotated[bool, typer.Option("--held", help="Show messages that wait for the clock instead.")] = False,
    as_json: SpoolJson = False,
) -> None:
    """List the batches that some output has yet to get, or the dead letters."""
    from gateway.spool import show  # noqa: PLC0415

    if dead and held:
        _fail("choose --dead or --held, not both", 2)
    settings = _gateway(config)
    with _spool_errors():
        show(settings, dead=dead, held=held, limit=limit, as_json=as_json)


@spool_app.command("inspect", epilog="Example: citygate spool inspect 17 -c gateway.toml --dead")
def spool_inspect(
    number: Annotated[int, typer.Argument(metavar="ID", help="As list shows it.")],
    config: Config,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="The dead letter of that id, not the batch.")] = False,
    as_json: SpoolJson = False,
) -> None:
    """Show one batch's points, or one dead letter: its payload and the whole reason."""
    from gateway.spool import inspect  # noqa: PLC0415

    settings = _gateway(config)
    with _spool_errors():
        inspect(settings, number, dead=dead, as_json=as_json)


@spool_app.command("export", epilog="Example: citygate spool export -c gateway.toml -o queued.lp")
def spool_export(
    config: Config,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is stdout.")] = Path("-"),
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--class", parser=_data_class, metavar="CLASS", help="Points of this class only; can be repeated."
        ),
    ] = None,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="Dead letters as JSON lines, payload as base64.")] = False,
) -> None:
    """Write what is queued as line protocol, times in ms, or the dead letters; nothing leaves the spool."""
    from gateway.spool import export  # noqa: PLC0415

    if dead and kind:
        _fail("dead letters have no class: leave out --class or --dead", 2)
    settings = _gateway(config)
    with _spool_errors():
        export(settings, output, classes=kind or get_args(Class), dead=dead)


@spool_app.command("drain", epilog="Example: citygate spool drain -c gateway.toml")
def spool_drain(config: Config) -> None:
    """Send all that is queued while no gateway runs, at full speed; Ctrl-C ends it and loses nothing."""
    from gateway.spool import drain  # noqa: PLC0415

    settings = _gateway(config)
    with _spool_errors():
        finished = drain(settings)
    if not finished:
        _fail("stopped before the end; what is left stays in the spool", 1)


@spool_app.command("requeue", epilog="Example: citygate spool requeue --all --reason 'unknown kind' -c gateway.toml")
def spool_requeue(
    config: Config,
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="As list --dead shows them.")] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only dead letters with this text in their reason.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: SpoolJson = False,
) -> None:
    """Try dead letters again, once their cause is mended; a running gateway is asked to do it.

    Messages are read anew; points go to the output that refused them. What fails again is a dead letter again.
    """
    from gateway.edge.source import SourceError  # noqa: PLC0415
    from gateway.spool import requeue  # noqa: PLC0415
    from sensors.kinds import KindError  # noqa: PLC0415

    if bool(numbers) == (everything or reason is not None):
        _fail("choose dead letters by their ids, or by --reason, or take --all", 2)
    settings = _gateway(config)
    with _usage_errors(SourceError, KindError), _spool_errors():
        requeue(settings, numbers or (), reason=reason, as_json=as_json)


def _faults(text: str) -> str:
    from sensors.inject import FAULTS  # noqa: PLC0415

    for name in text.split(","):
        if name not in FAULTS:
            msg = f"expected one of {', '.join(FAULTS)}, not {name!r}"
            raise typer.BadParameter(msg)
    return text


@app.command(epilog="Example: citygate inject river.csv --kind water --seed 1 -o suite.csv --truth suite.jsonl")
def inject(  # noqa: PLR0913, PLR0917 - one parameter an option
    file: Annotated[Path, typer.Argument(help="A clean recording: CSV, plain or gzip'd, as replay reads it.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The labelled recording.")],
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same faults in the same places.")],
    per_kind: Annotated[int, typer.Option(min=1, help="How many of each fault, and of each look-alike event.")] = 6,
    kinds: Annotated[
        str | None, typer.Option(parser=_faults, metavar="FAULT,...", help="Which faults; all by default.")
    ] = None,
    amplitude: Annotated[
        Literal["small", "medium", "large", "all"], typer.Option(help="How large; all: they take turns.")
    ] = "all",
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what was put where, JSON lines, for evaluate.")
    ] = None,
    time_column: TimeColumn = None,
    sensor_column: SensorColumn = None,
    site: Site = "replay",
    site_column: SiteColumn = None,
    kind: KindName = None,
    kind_column: KindColumn = None,
    column: Columns = None,
    ignore: Ignore = None,
    missing: Missing = None,
    timezone: Timezone = None,
    *,
    skip_bad: SkipBad = False,
) -> None:
    """Put faults, and true events that look like them, into a clean recording, to judge a filter by."""
    from gateway.inject import main as run_injection  # noqa: PLC0415
    from gateway.layouts import layout_of  # noqa: PLC0415
    from sensors.inject import FAULTS, InjectionError  # noqa: PLC0415
    from sensors.recording import RecordingError  # noqa: PLC0415

    with _usage_errors(ValueError, RecordingError):
        layout = layout_of(
            time=time_column,
            sensor=sensor_column,
            site=site,
            site_column=site_column,
            kind=kind,
            kind_column=kind_column,
            columns=column or (),
            ignore=ignore or (),
            missing=missing or (),
            timezone=timezone,
            skip_bad=skip_bad,
        )
        try:
            run_injection(
                file,
                layout=layout,
                output=output,
                truth=truth,
                seed=seed,
                per_kind=per_kind,
                faults=kinds.split(",") if kinds else tuple(FAULTS),
                amplitude=amplitude,
            )
        except (InjectionError, OSError) as error:
            _fail(error, 1)


@app.command(epilog="Example: citygate evaluate suite.csv --truth suite.jsonl --plot misses.html")
def evaluate(  # noqa: PLR0913, PLR0917 - one parameter an option
    file: Annotated[
        Path | None, typer.Argument(help="A labelled recording: time,sensor,kind,quantity,value,label; CSV.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(metavar="FILE", help="What inject wrote of the recording.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the worst misses, HTML.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An earlier --json; exit 1 if something is worse than there.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Messages to judge at most.")] = None,
    unit: Annotated[
        list[str] | None, typer.Option(metavar="QUANTITY=UNIT", help="Unit of a quantity, if not its kind's.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A gateway's configuration, for its kinds and overrides.")
    ] = None,
    time_column: TimeColumn = None,
    sensor_column: SensorColumn = None,
    site: Site = "replay",
    site_column: SiteColumn = None,
    kind: KindName = None,
    kind_column: KindColumn = None,
    column: Columns = None,
    ignore: Ignore = None,
    missing: Missing = None,
    timezone: Timezone = None,
    nab: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Numenta Anomaly Benchmark instead: DIR/data and DIR/labels.")
    ] = None,
    scores_out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --nab: write scores as its own scorer reads them.")
    ] = None,
    *,
    skip_bad: SkipBad = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure how good the filter is: on a recording with known faults, or by a benchmark's published rules.

    Of a recording: which episodes are found, how soon, which are called faults, how many events are taken for faults,
    and what happens on clean data.
    """
    if (file is None) == (nab is None):
        _fail("choose one: a labelled recording, or --nab DIR", 2)
    if nab is not None:
        _evaluate_nab(nab, scores_out, as_json=as_json)
        return
    assert file is not None  # noqa: S101 - for the type checker
    from gateway.edge.source import SourceError  # noqa: PLC0415
    from gateway.judge import JudgeError  # noqa: PLC0415
    from gateway.judge import main as run_judge  # noqa: PLC0415
    from gateway.layouts import layout_of  # noqa: PLC0415
    from sensors.kinds import KindError  # noqa: PLC0415
    from sensors.recording import RecordingError  # noqa: PLC0415

    with _usage_errors(ValueError, JudgeError, RecordingError, SourceError, KindError):
        layout = layout_of(
            time=time_column,
            sensor=sensor_column,
            site=site,
            site_column=site_column,
            kind=kind,
            kind_column=kind_column,
            columns=column or (),
            ignore=ignore or (),
            missing=missing or (),
            timezone=timezone,
            skip_bad=skip_bad,
        )
        try:
            code = run_judge(
                file,
                layout=layout,
                units=unit or (),
                config=None if config is None else load(config, GatewayConfig),
                truth=truth,
                plot=plot,
                baseline=baseline,
                limit=limit,
                as_json=as_json,
            )
        except OSError as error:
            _fail(error, 1)
    raise typer.Exit(code)


def _evaluate_nab(nab: Path, scores_out: Path | None, *, as_json: bool) -> None:
    from gateway.evaluate import main as run_evaluation  # noqa: PLC0415
    from gateway.nab import LayoutError  # noqa: PLC0415

    with _usage_errors(LayoutError):
        try:
            run_evaluation(nab, scores_out=scores_out, as_json=as_json)
        except OSError as error:
            _fail(error, 1)


@app.command(epilog="Example: citygate report march.cgrec -c configs/gateway.toml -o march.html")
def report(  # noqa: PLR0913, PLR0917 - one parameter an option
    recording: Annotated[Path, typer.Argument(help="A recording (.cgrec), or a CSV, plain or gzip'd.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The gateway's configuration; its secrets are not needed.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The page; RECORDING.html by default.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the page; the recording's name by default.")] = None,
    timezone: Annotated[
        str | None,
        typer.Option(metavar="ZONE", help="Zone of the page's times, and of a CSV's without offset; UTC by default."),
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Topic template of a CSV's rows; city/{site}/{kind}/{sensor} by default.")
    ] = None,
    time_column: TimeColumn = None,
    sensor_column: SensorColumn = None,
    site: Annotated[str | None, typer.Option(help="Site of all rows of a CSV.")] = None,
    site_column: SiteColumn = None,
    kind: KindName = None,
    kind_column: KindColumn = None,
    column: Columns = None,
    ignore: Ignore = None,
    missing: Missing = None,
    *,
    skip_bad: SkipBad = False,
    as_json: Annotated[bool, typer.Option("--json", help="Also print what the page says, as JSON.")] = False,
) -> None:
    """Play a recording through decode and filter, and write a page about it: what came, what was flagged and why.

    The page is one HTML file that needs no network, prints well, and also shows each sensor's availability, the bytes
    before and after, and what could not be read. Nothing is sent or stored anywhere else.
    """
    from gateway.config import without_secrets  # noqa: PLC0415
    from gateway.edge.source import SourceError  # noqa: PLC0415
    from gateway.report.make import main as make_report  # noqa: PLC0415
    from sensors.kinds import KindError  # noqa: PLC0415
    from sensors.recording import RecordingError  # noqa: PLC0415
    from sensors.stream import StreamError  # noqa: PLC0415

    given = {
        "time": time_column,
        "sensor": sensor_column,
        "site": site,
        "site_column": site_column,
        "kind": kind,
        "kind_column": kind_column,
        "columns": column,
        "ignore": ignore,
        "missing": missing,
        "skip_bad": skip_bad,
    }
    with _usage_errors(ValueError, RecordingError, StreamError, SourceError, KindError):
        if config is None:
            plain = {"gateway": {"id": "report"}, "output": [{"url": "http://127.0.0.1"}]}
            settings = GatewayConfig.model_validate(plain)
        else:
            settings = load(config, GatewayConfig, change=without_secrets)
        try:
            make_report(
                recording,
                config=settings,
                output=output or Path(f"{recording.name.split('.')[0] or 'report'}.html"),
                title=title,
                topic=topic,
                timezone=timezone,
                layout={name: value for name, value in given.items() if value},
                as_json=as_json,
            )
        except OSError as error:
            _fail(error, 1)


user_app = typer.Typer(
    help="See who may sign in to the city view, and make links by which they choose their passwords.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Example: citygate user list -c /etc/citygate/city.toml",
)
app.add_typer(user_app, name="user")


@contextmanager
def _user_errors() -> Iterator[None]:
    from gateway.city.auth.command import UserError  # noqa: PLC0415
    from gateway.city.database.engine import DatabaseError  # noqa: PLC0415

    with _usage_errors():
        try:
            yield
        except (UserError, DatabaseError) as error:
            _fail(error, 1)


def _user_command() -> ModuleType:
    def command() -> ModuleType:
        from gateway.city.auth import command  # noqa: PLC0415

        return command

    return _extra(command, "city")


@user_app.command("list", epilog="Example: citygate user list -c /etc/citygate/city.toml")
def user_list(
    config: Config, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False
) -> None:
    """Show who may sign in, with their roles."""
    command = _user_command()
    with _user_errors():
        command.show(load(config, CityConfig), as_json=as_json)


@user_app.command("link", epilog="Example: citygate user link admin -c /etc/citygate/city.toml")
def user_link(name: Annotated[str, typer.Argument(help="Who is to choose a password.")], config: Config) -> None:
    """Make a link by which a person chooses a new password: once, within three days."""
    command = _user_command()
    with _user_errors():
        command.link(load(config, CityConfig), name)


def _version(*, value: bool) -> None:
    if value:
        typer.echo(f"citygate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *, version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False
) -> None:
    """Take options that come before a command."""


def main() -> None:
    """Entry point of the command ``citygate``."""
    app()


if __name__ == "__main__":
    main()
