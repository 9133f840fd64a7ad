from pathlib import Path

import pytest

from gateway.streams import Stream
from sensors.stream import Message, StreamError, Writer

START = 1_790_000_000_000


def write(path: Path, count: int = 5) -> Path:
    with Writer(path) as writer:
        for number in range(count):
            moment = (START + number) * 10**6
            writer.add("a/\udcff", b"%d" % number, monotonic=number, wall=moment)
    return path


def test_a_recording_is_told_from_a_csv_by_its_bytes(tmp_path: Path) -> None:
    stream = Stream(write(tmp_path / "named.csv"))
    assert not stream.table
    assert (stream.messages, stream.first, stream.last) == (5, START, START + 4)
    assert (
        list(stream)
        == list(stream)
        == [Message("a/\udcff", b"%d" % i, monotonic=i, wall=(START + i) * 10**6) for i in range(5)]
    )


def test_rows_of_a_csv_are_messages_at_topics_of_a_template(tmp_path: Path) -> None:
    path = tmp_path / "river.csv"
    path.write_text("t,level\n2026-03-01 00:00,1.5\n2026-03-01 00:10,1.6\n", "utf-8")
    stream = Stream(path, "own/{sensor}/{kind}", {"time": "t", "timezone": "+08:00"})
    assert stream.table
    assert [message.topic for message in stream] == ["own/river/water"] * 2
    first = next(iter(stream))
    assert first.payload == b'{"ts":1772294400000,"level":1.5}'
    assert first.wall == 1_772_294_400_000 * 10**6


def test_what_is_damaged_is_told_once_all_was_read(tmp_path: Path) -> None:
    path = write(tmp_path / "r.cgrec", 9000)
    data = bytearray(path.read_bytes())
    data[200] ^= 1  # in the first block
    path.write_bytes(data)
    stream = Stream(path)
    assert sum(1 for _ in stream) == 5000
    assert len(stream.damage) == 1
    assert "of 4,000 messages" in stream.damage[0]


@pytest.mark.parametrize("options", [{"kind": "air"}, {"skip_bad": True}])
def test_options_of_a_csv_are_refused_for_a_recording_of_messages(tmp_path: Path, options: dict[str, object]) -> None:
    path = write(tmp_path / "r.cgrec")
    with pytest.raises(ValueError, match=f"'{next(iter(options))}' says how to read a CSV"):
        Stream(path, None, options)
    with pytest.raises(ValueError, match="'topic' says how to read a CSV"):
        Stream(path, "a/{sensor}", {})


@pytest.mark.parametrize("topic", ["{city}/{sensor}", "{", "{}", "{0}"])
def test_a_wrong_template_is_refused(tmp_path: Path, topic: str) -> None:
    (tmp_path / "a.csv").write_text("time,pm25\n1790000000,1\n", "utf-8")
    with pytest.raises(ValueError, match=r"is no template; there are \{site\}, \{kind\} and \{sensor\}"):
        Stream(tmp_path / "a.csv", topic)


def test_what_is_not_there_or_ends_in_its_header_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.csv"):
        Stream(tmp_path / "none.csv")
    path = write(tmp_path / "r.cgrec")
    path.write_bytes(path.read_bytes()[:12])
    with pytest.raises(StreamError, match="ends in its header"):
        Stream(path)
