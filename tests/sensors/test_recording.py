import gzip
import json
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sensors.recording import Layout, Recording, RecordingError

Read = Callable[..., Recording]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def made(text: str, **layout: Any) -> Recording:  # noqa: ANN401 - the keywords of Layout
        path = tmp_path / "river.csv"
        path.write_text(text, "utf-8")
        return Recording(path, Layout(**layout))

    return made


def _payloads(recording: Recording) -> list[str]:
    return [reading.payload(reading.time).decode() for reading in recording]


def test_numbers_stay_as_written_where_json_can(read: Read) -> None:
    recording = read("time,name,pm25,pm10,co\n1700000000,a,12.500,1e2,-0\n1700000001,a,.5,+7,012\n")
    assert _payloads(recording) == [
        '{"ts":1700000000000,"pm25":12.500,"pm10":1e2,"co":-0}',
        '{"ts":1700000001000,"pm25":0.5,"pm10":7.0,"co":12.0}',
    ]


@pytest.mark.parametrize(
    "text",
    ["1700000000", "1700000000000", "1700000000000000", "1700000000000000000", "2023-11-14T22:13:20Z",
     "2023-11-15T06:13:20+08:00", "2023/11/14 22:13:20+00:00"],
)  # fmt: skip
def test_times_in_any_common_form(text: str, read: Read) -> None:
    assert [reading.time for reading in read(f"timestamp,laeq\n{text},50\n")] == [1_700_000_000_000]


def test_a_time_without_offset_needs_a_zone(read: Read) -> None:
    text = "datetime,laeq\n2023-11-14 22:13:20,50\n"
    with pytest.raises(RecordingError, match=r"river.csv: line 2: column 'datetime': .* has no offset; say --timezone"):
        read(text)
    assert read(text, zone=UTC).first == 1_700_000_000_000
    assert read(text, zone=ZoneInfo("Asia/Shanghai")).first == 1_700_000_000_000 - 8 * 3_600_000


def test_the_kind_is_the_one_that_matches_most_columns(read: Read) -> None:
    (reading,) = read("time,station,level,ph,turbidity\n1700000000,a/b,1,7,9\n")
    assert (reading.kind, reading.site, reading.sensor) == ("water", "replay", "a_b")
    (reading,) = read("time,laeq\n1700000000,50\n")
    assert (reading.kind, reading.sensor) == ("noise", "river")


def test_a_column_of_numbers_that_nobody_knows_is_named(read: Read) -> None:
    text = "time,PM2.5,pm10,comment\n1700000000,5,6,windy\n"
    with pytest.raises(RecordingError, match=r"'PM2.5' is no quantity of the kind air \(did you mean 'pm25'\?\)"):
        read(text)
    assert _payloads(read(text, columns={"PM2.5": "pm25"})) == ['{"ts":1700000000000,"pm25":5,"pm10":6}']
    assert _payloads(read(text, ignore=["PM2.5"])) == ['{"ts":1700000000000,"pm10":6}']


def test_missing_cells_are_left_out_and_rows_without_a_value_counted(read: Read) -> None:
    recording = read("time,pm25,pm10\n1700000000,,5\n1700000060,NA,-9999\n1700000120,-9999,4\n", missing=["-9999"])
    assert _payloads(recording) == ['{"ts":1700000000000,"pm10":5}', '{"ts":1700000120000,"pm10":4}']
    assert (recording.rows, recording.empty, recording.messages) == (3, 1, 2)


def test_compass_points_are_strings_of_directions_only(read: Read) -> None:
    assert _payloads(read("time,pm25,wind_direction\n1700000000,1,NNW\n")) == [
        '{"ts":1700000000000,"pm25":1,"wind_direction":"NNW"}'
    ]
    with pytest.raises(RecordingError, match="line 3: column 'pm25': 'NNW' is not a number"):
        read("time,pm25\n1700000000,1\n1700000001,NNW\n")


def test_bad_rows_are_counted_when_asked(read: Read) -> None:
    text = "time,pm25\n1700000000,1\nyesterday,2\n1700000002,3,4\n1700000003,x\n1700000004,5\n"
    recording = read(text, skip_bad=True)
    assert (recording.messages, recording.bad, recording.rows) == (2, 3, 5)
    with pytest.raises(RecordingError, match="line 3: column 'time': 'yesterday' is not a time"):
        read(text)


def test_rows_out_of_order_come_in_order(read: Read) -> None:
    recording = read("time,name,pm25\n1700000002,b,3\n1700000001,a,1\n1700000001,b,2\n")
    assert [reading.values["pm25"] for reading in recording] == ["1", "2", "3"]
    assert (recording.first, recording.last) == (1_700_000_001_000, 1_700_000_002_000)


def test_a_long_file_joins_the_rows_of_one_reading(read: Read) -> None:
    text = (
        "time,sensor,kind,quantity,value\n"
        "1700000000,a,air,pm25,1\n1700000000,a,air,pm10,2\n1700000000,b,noise,laeq,50\n1700000060,b,noise,laeq,51\n"
    )
    readings = list(read(text))
    assert [(r.kind, r.sensor, r.values) for r in readings] == [
        ("air", "a", {"pm25": "1", "pm10": "2"}),
        ("noise", "b", {"laeq": "50"}),
        ("noise", "b", {"laeq": "51"}),
    ]


def test_every_row_can_have_a_kind_of_its_own(read: Read) -> None:
    text = "time,name,site,kind,laeq,speed\n1700000000,a,x,noise,50,\n1700000000,b,y,traffic,,40\n"
    assert [(r.site, r.kind, list(r.values)) for r in read(text)] == [
        ("x", "noise", ["laeq"]),
        ("y", "traffic", ["speed"]),
    ]
    with pytest.raises(RecordingError, match=r"line 2: no kind 'nois' .did you mean 'noise'"):
        read("time,kind,laeq\n1700000000,nois,50\n")


@pytest.mark.parametrize(
    ("text", "layout", "says"),
    [
        ("", {}, "no header"),
        ("a,b\n1,2\n", {}, "no column of the time"),
        ("time,x\n1700000000,y\n", {}, "no column is a quantity"),
        ("time,pm25,pm25\n", {}, "'pm25' comes twice"),
        ("time,pm25\n", {"sensor": "tim"}, r"no column 'tim' for the sensor .did you mean 'time'"),
        ("time,pm25\n", {"kind": "water"}, "no column is a quantity"),
        ("time,pm25\n", {"kind": "wather"}, "no kind 'wather' .did you mean 'w"),
        ("time,pm25,x\n1700000000,5,6\n", {"columns": {"x": "pm1"}}, "--column x=pm1: no quantity of the kind air"),
        ("time,sensor,quantity,value\n", {}, "needs a column 'kind', or --kind"),
    ],
)
def test_a_wrong_file_or_layout_says_what_to_do(text: str, layout: dict[str, Any], says: str, read: Read) -> None:
    with pytest.raises(RecordingError, match=says):
        read(text, **layout)


def test_a_broken_gzip_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv.gz"
    packed = gzip.compress(
        b"time,pm25\n" + b"".join(b"%d,%d\n" % (1_700_000_000 + n, n * 7919 % 97) for n in range(9999))
    )
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(RecordingError, match=r"cut.csv.gz: line \d+: Compressed file ended"):
        Recording(path, Layout())
    path.write_bytes(packed)
    last = list(Recording(path, Layout()))[-1]
    assert json.loads(last.payload(last.time)) == {"ts": 1_700_009_998_000, "pm25": 9998 * 7919 % 97}
