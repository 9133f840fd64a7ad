import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from gateway.__main__ import app
from sensors.inject import AMPLITUDES, EVENT, FAULTS, Channel, Episode, InjectionError, inject
from sensors.recording import Layout, Recording

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_700_006_400_000  # a whole hour
SHAPES = {shape for shape in FAULTS.values() if shape}


def red(random: np.random.Generator, many: int, memory: float = 0.9) -> np.ndarray:
    value = random.normal(0, 1, many)
    for i in range(1, many):
        value[i] += memory * value[i - 1]
    return value


def town(days: int = 100, interval: int = HOUR, sensors: int = 4) -> list[Channel]:
    """Sensors that see the same weather, each with a little of its own."""
    random = np.random.default_rng(5)
    many = days * DAY // interval
    time = START + np.arange(many) * interval
    day = np.sin(2 * np.pi * (time % DAY) / DAY)
    warm, dusty, windy = (red(random, many) for _ in range(3))
    channels = []
    for number in range(sensors):
        own = [red(random, many, 0.5) * 0.3 for _ in range(4)]
        dust = np.exp(3 + 0.25 * dusty + 0.1 * own[1])
        values = {
            "temperature": 18 + 6 * day + warm + own[0],
            "humidity": np.clip(75 - 15 * day - 3 * warm + own[0], 0, 100),
            "pm25": dust,
            "pm10": dust * 1.5 + 5,
            "wind_speed": np.abs(1.5 + day + 0.5 * windy + own[3]),
        }
        for quantity, value in values.items():
            text = [f"{number:.1f}" for number in value]
            channels.append(Channel("park", "air", f"s{number}", quantity, time, text, np.array(text, float)))
    return channels


def result(channels: list[Channel]) -> list[tuple[dict[int, str], dict[int, str]]]:
    return [(channel.changed, channel.label) for channel in channels]


def after(channel: Channel, place: int) -> float:
    return float(channel.changed.get(place, channel.text[place]))


def of(channels: list[Channel], episode: Episode, quantity: str | None = None) -> tuple[Channel, list[int]]:
    """Where an episode began, and its readings there."""
    part = episode.parts[0]
    wanted = (part.sensor, quantity or episode.quantity)
    channel = next(channel for channel in channels if (channel.sensor, channel.quantity) == wanted)
    return channel, list(range(channel.place(part.start), channel.place(part.end + 1)))


@pytest.fixture(scope="module")
def suite() -> tuple[list[Channel], list[Episode]]:
    channels = town(400)
    return channels, inject(channels, seed=3, per_kind=6)


def test_the_same_seed_puts_the_same_into_the_same_places_and_another_does_not() -> None:
    suites = []
    for seed in (1, 1, 2):
        channels = town()
        episodes = inject(channels, seed=seed, per_kind=1)
        suites.append((episodes, result(channels)))
    assert suites[0] == suites[1]
    assert suites[0][0] != suites[2][0]


def test_every_fault_and_every_look_alike_is_there_in_every_size(suite: tuple[list[Channel], list[Episode]]) -> None:
    channels, episodes = suite
    assert {(episode.shape, episode.amplitude) for episode in episodes} >= {
        (shape, amplitude) for shape in {*FAULTS, *SHAPES} for amplitude in AMPLITUDES
    }
    assert {episode.label for episode in episodes} == {*FAULTS, EVENT}
    assert {label for channel in channels for label in channel.label.values()} == {*FAULTS, EVENT}


def test_a_fault_and_its_look_alike_know_each_other(suite: tuple[list[Channel], list[Episode]]) -> None:
    by_id = {episode.id: episode for episode in suite[1]}
    assert len(by_id) == len(suite[1])
    paired = [episode for episode in suite[1] if episode.pair is not None]
    assert {episode.shape for episode in paired} == {*FAULTS, *SHAPES} - {"unit"}
    for episode in paired:
        other = by_id[episode.pair or 0]
        assert (other.pair, other.amplitude) == (episode.id, episode.amplitude)
        assert {FAULTS.get(episode.shape), FAULTS.get(other.shape)} & {episode.shape, other.shape}


def whole(channels: list[Channel], episodes: list[Episode]) -> None:
    """What holds of any suite."""
    labelled = {
        (part.sensor, quantity, moment)
        for episode in episodes
        for part in episode.parts
        for quantity in part.quantities
        for moment in (part.start, part.end)
    }
    spans: dict[str, list[tuple[int, int]]] = {}
    for episode in episodes:
        for part in episode.parts:
            spans.setdefault(part.sensor, []).append((part.start, part.end))
    day = min(DAY, int(np.ptp(channels[0].time)) / 60)
    for its in spans.values():
        its.sort()
        assert all(later[0] - earlier[1] > day for earlier, later in itertools.pairwise(its))
    for channel in channels:
        assert channel.changed.keys() <= channel.label.keys()  # what has no label stands as it was recorded
        known = channel.time[0] + min(0.2 * np.ptp(channel.time), 30 * day)
        assert all(channel.time[place] >= known for place in channel.label)
        for place, label in channel.label.items():
            if label == EVENT:
                value = after(channel, place)
                assert value >= 0 or channel.quantity == "temperature"
                assert value <= 100 or channel.quantity != "humidity"
    assert {(sensor, quantity) for sensor, quantity, _ in labelled} == {
        (channel.sensor, channel.quantity) for channel in channels if channel.label
    }
    for low, high in zip(channels[2::5], channels[3::5], strict=True):
        for place in low.label | high.label:
            if {low.label.get(place), high.label.get(place)} <= {EVENT, None}:
                assert after(low, place) <= after(high, place)  # PM2.5 is part of PM10


def test_nothing_else_is_changed_nothing_overlaps_and_events_are_possible(
    suite: tuple[list[Channel], list[Episode]],
) -> None:
    whole(*suite)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    amplitude=st.sampled_from(AMPLITUDES),
    faults=st.sets(st.sampled_from(tuple(FAULTS)), min_size=1),
    days=st.integers(60, 80),
)
def test_any_suite_is_whole(seed: int, amplitude: str, faults: set[str], days: int) -> None:
    channels = town(days, sensors=2)
    whole(channels, inject(channels, seed=seed, per_kind=2, faults=faults, amplitudes=(amplitude,)))


def changes(suite: tuple[list[Channel], list[Episode]], shape: str) -> list[tuple[np.ndarray, np.ndarray, Episode]]:
    """Before and after, where each episode of a shape began."""
    found = []
    for episode in suite[1]:
        if episode.shape == shape:
            channel, places = of(suite[0], episode)
            found.append((channel.value[places], np.array([after(channel, place) for place in places]), episode))
    return found


def test_faults_look_as_they_are_called(suite: tuple[list[Channel], list[Episode]]) -> None:
    for _, now, _ in changes(suite, "stuck"):
        assert len(set(now)) == 1
        assert len(now) >= 12
    for was, now, _ in changes(suite, "spike"):
        assert len(now) <= 3
        assert (was != now).all()
    for was, now, _ in changes(suite, "offset"):
        assert np.ptp(now - was) <= 0.21  # but for rounding
        assert len(now) >= 24
    for was, now, _ in changes(suite, "drift"):
        size = np.abs(now - was)
        assert size[0] < 0.1 * size[-1]
        assert size[-1] == size.max()
        assert len(now) >= 48
    for was, now, _ in changes(suite, "dropout"):
        assert {0.0} <= set(now) <= {0.0, *was}
    for was, now, _ in changes(suite, "unit"):
        assert np.corrcoef(was, now)[0, 1] > 0.99 or np.abs(now).max() < 1
    for was, now, _ in changes(suite, "noise"):
        assert np.abs(np.diff(now)).mean() > 1.5 * np.abs(np.diff(was)).mean()


def test_sizes_grow_from_small_to_large() -> None:
    for fault in ("spike", "offset", "drift", "noise"):
        sizes = []
        for amplitude in AMPLITUDES:
            channels = town(200, sensors=1)[:1]
            episodes = inject(channels, seed=1, per_kind=5, faults=(fault,), amplitudes=(amplitude,))
            sizes.append(np.mean([np.abs(now - was).max() for was, now, _ in changes((channels, episodes), fault)]))
        assert sizes[0] < sizes[1] < sizes[2]


def test_values_keep_the_digits_in_which_the_sensor_sends() -> None:
    channels = town(100, sensors=1)
    for channel in channels:
        channel.text = [f"{round(value * 10) * 100}" for value in channel.value]
        channel.value = np.array(channel.text, float)
    inject(channels, seed=1, per_kind=1, faults=[fault for fault in FAULTS if fault != "unit"])
    changed = [text for channel in channels for text in channel.changed.values()]
    assert changed
    assert all(text == "0" or text.endswith("00") for text in changed)


def test_a_wrong_clock_takes_all_quantities_of_the_sensor_along(suite: tuple[list[Channel], list[Episode]]) -> None:
    for episode in suite[1]:
        if episode.shape != "skew":
            continue
        (part,) = episode.parts
        assert len(part.quantities) == 5
        shifts = []
        for quantity in part.quantities:
            channel, places = of(suite[0], episode, quantity)
            now = [channel.changed[place] for place in places]
            shifts.append(
                {
                    shift
                    for shift in range(-8, 9)
                    if now == [channel.text[place + shift] for place in places]
                }
            )  # fmt: skip
        assert set.intersection(*shifts) & {-8, -4, -2, 2, 4, 8}


def test_events_are_no_faster_than_the_quantity_has_been(suite: tuple[list[Channel], list[Episode]]) -> None:
    for shape in ("gust", "front", "season"):
        for was, now, episode in changes(suite, shape):
            channel, _ = of(suite[0], episode)
            assert np.abs(np.diff(now - was)).max() <= 1.4 * channel.fastest + 0.2


def test_a_front_crosses_all_neighbours_and_nobody_else() -> None:
    channels = town(sensors=4)
    far = town(sensors=1)
    for channel in far:
        channel.sensor, channel.site = "elsewhere", "other"
    episodes = inject([*channels, *far], seed=1, per_kind=3, faults=("offset",))
    for front in (episode for episode in episodes if episode.shape == "front"):
        seen = {part.sensor for part in front.parts}
        assert seen in ({"s0", "s1", "s2", "s3"}, {"elsewhere", "s0", "s1", "s2", "s3"})


def test_a_front_crosses_known_places_in_one_direction() -> None:
    channels = town(sensors=4)
    places = {("park", "air", f"s{number}"): (60.0, 10.0 + number) for number in range(4)}
    episodes = inject(channels, seed=2, per_kind=3, faults=("offset",), places=places)
    for front in (episode for episode in episodes if episode.shape == "front"):
        starts = [part.start for part in sorted(front.parts, key=lambda part: part.sensor)]
        assert len(starts) == 4
        assert starts in (sorted(starts), sorted(starts, reverse=True))


def test_in_a_short_recording_all_is_shorter() -> None:
    channels = town(2, interval=60_000, sensors=2)
    episodes = inject(channels, seed=1, per_kind=1)
    assert {episode.shape for episode in episodes} >= {"drift", "offset", "stuck", "spike", "noise"}
    assert not {"skew", "holiday"} & {episode.shape for episode in episodes}  # nothing of a day's course is known
    whole(channels, episodes)


def test_where_nothing_moves_nothing_can_be_put() -> None:
    still = town(sensors=1)
    for channel in still:
        channel.text = ["5.0"] * len(channel.text)
        channel.value = np.full(len(channel.text), 5.0)
    with pytest.raises(InjectionError, match=r"no room for a single fault: .* or nothing in it moves"):
        inject(still, seed=1, per_kind=1)


# -- the command -------------------------------------------------------------------------------------------------------

Run = Callable[..., str]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wide file with places and a compass."""
    path = tmp_path_factory.mktemp("inject") / "park.csv"
    channels = town(80, sensors=2)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["time", "station", *(channel.quantity for channel in channels[:5]), "wind_direction", "lat", "lon"]
        )
        for at, time in enumerate(channels[0].time.tolist()):
            for number in range(2):
                values = [channel.text[at] for channel in channels[5 * number :][:5]]
                writer.writerow([time, f"s{number}", *values, "NW", 60.0 + number, "10.5"])
    return path


def test_the_command_writes_a_labelled_recording_and_the_truth(recording: Path, tmp_path: Path) -> None:
    outputs = []
    for name in ("a", "b"):
        out, truth = tmp_path / f"{name}.csv", tmp_path / f"{name}.jsonl"
        given = ["inject", str(recording), "--kind", "air", "--seed", "7", "--per-kind", "1", "-o", str(out)]
        done = CliRunner().invoke(app, [*given, "--truth", str(truth), "--amplitude", "medium"])
        assert (done.exit_code, "stuck" in done.stdout) == (0, True), done.output
        outputs.append((out.read_bytes(), truth.read_bytes()))
    assert outputs[0] == outputs[1]
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert list(rows[0]) == ["time", "sensor", "kind", "quantity", "value", "label", "lat", "lon"]
    assert {(row["sensor"], row["lat"], row["lon"]) for row in rows} == {("s0", "60.0", "10.5"), ("s1", "61.0", "10.5")}
    before = iter(Recording(recording, Layout(kind="air")))
    plain = [(quantity, text.strip('"')) for reading in before for quantity, text in reading.values.items()]
    assert len(plain) == len(rows)
    for (quantity, text), row in zip(plain, rows, strict=True):
        assert row["quantity"] == quantity
        assert row["label"] or row["value"] == text
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert {line["label"] for line in lines} == {row["label"] for row in rows} - {""}
    assert all({"id", "pair", "shape", "amplitude", "start", "end", "quantities"} <= line.keys() for line in lines)
    again = Recording(tmp_path / "a.csv", Layout())
    assert again.places == {("replay", "air", "s0"): (60.0, 10.5), ("replay", "air", "s1"): (61.0, 10.5)}
    assert {label for reading in again for label in reading.labels.values()} == {line["label"] for line in lines}


def test_the_command_says_what_is_wrong(recording: Path, tmp_path: Path) -> None:
    def run(*given: str, file: Path = recording) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["inject", str(file), "--seed", "1", "-o", str(tmp_path / "o.csv"), *given])
        return done.exit_code, done.output

    code, text = run("--kinds", "stuck,slip")
    assert (code, "not 'slip'" in text, "dropout" in text) == (2, True, True)
    code, text = run(file=tmp_path / "none.csv")
    assert (code, "none.csv: No such file" in text) == (2, True)
    short = tmp_path / "short.csv"
    short.write_text("time,laeq\n1700000000,50\n1700000060,51\n")
    code, text = run(file=short)
    assert (code, "no room for a single fault" in text) == (1, True)
    code, text = run("--kinds", "stuck", "--per-kind", "50")
    assert (code, "There was no room for 50 of each: stuck" in text) == (0, True)
