"""What a replay left, as text that is compared line by line and kept beside the tests: golden results."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.testing.playing import Replay

_SHOWN = 60  # lines of a difference


def lines_of(replay: "Replay", *, good: bool) -> Iterator[str]:
    """A replay's results; the same for the same recording and configuration, whatever the speed.

    Args:
        replay: What was replayed.
        good: Whether good values have a line each; else they are only counted.
    """
    stored = replay.points()
    counts: dict[str, Counter[str]] = {}
    for point in stored:
        counts.setdefault(f"{point.site}/{point.kind}/{point.sensor} {point.quantity}", Counter())[point.flag] += 1
    yield "# readings by flag"
    for channel, flags in counts.items():
        yield f"{channel}  " + "  ".join(f"{flag or 'not judged'} {count}" for flag, count in sorted(flags.items()))
    yield from ("", "# readings" if good else "# readings that are not good")
    for point in stored:
        if good or point.flag != "good":
            yield f"{point.site}/{point.kind}/{point.sensor} {point.quantity}  {point}"
    yield from _section("events", map(str, replay.events()))
    yield from _section("verdicts", sorted(map(str, replay.verdicts())))
    yield from _section("dead letters", map(str, replay.dead_letters()))
    yield from _section("ledger", str(replay.ledger).splitlines())


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    yield from ("", f"# {title}", *(found or ["none"]))


def difference(expected: Sequence[str], actual: Sequence[str]) -> str:
    """How texts differ, for people; empty if they do not: ``-`` is expected, ``+`` is what there is."""
    found = list(difflib.unified_diff(expected, actual, "expected", "stored", lineterm="", n=2))
    more = len(found) - _SHOWN
    return "\n".join(found[:_SHOWN] + ([f"… {more} lines more"] if more > 0 else []))


class Golden:
    """Compares results with the file that keeps them; what the fixture ``golden`` is.

    Args:
        folder: Where the files are.
        name: Of the test.
        update: Whether the files are written anew.

    Attributes:
        written: Files that were written.
    """

    def __init__(self, folder: Path, name: str, *, update: bool) -> None:
        self._folder = folder
        self._name = name
        self._update = update
        self.written: list[Path] = []

    def __repr__(self) -> str:
        """In a word, for failures show it."""
        return f"Golden({self._name})"

    def __call__(self, result: "Replay | str", name: str | None = None, *, good: bool = True) -> None:
        """Compares a result with its file, ``golden/NAME.txt`` beside the test.

        Args:
            result: A replay, or a text.
            name: The file's; the test's by default.
            good: Whether good values of a replay have a line each. Without, a long recording stays a short file, in
                which they are counted and all others have a line.

        Raises:
            AssertionError: It differs, or there is no file yet.
        """
        __tracebackhide__ = True
        actual = result.splitlines() if isinstance(result, str) else list(lines_of(result, good=good))
        plain = re.sub(r"[^\w.-]+", "-", name or self._name).strip("-")
        path = self._folder / f"{plain}.txt"
        expected = path.read_text("utf-8").splitlines() if path.is_file() else None
        if self._update:
            if expected != actual:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join([*actual, ""]), "utf-8")
                self.written.append(path)
            return
        if expected is None:
            msg = f"{path}: no golden result yet. Run pytest --update-recordings, look at the file, and commit it"
            raise AssertionError(msg)
        if found := difference(expected, actual):
            msg = f"not as in {path}; if it is right as it is now, run pytest --update-recordings\n{found}"
            raise AssertionError(msg)
