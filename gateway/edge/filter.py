"""The filter of the device: quality control, verdicts, and the events that are left.

inspect: a flag and reasons for every value  →  judge: faults that last fail  →  watch: good values beyond a limit,
and the gateway's own rules
"""

from collections.abc import Sequence
from typing import NamedTuple

from gateway.edge.alarms import Alarm, Alarms
from gateway.edge.faults import TESTS
from gateway.edge.faults.look import Verdict
from gateway.edge.inspect import Inspector
from gateway.edge.keep import Step
from gateway.edge.maintenance import Maintenance
from gateway.edge.readings import Channels, Readings
from gateway.edge.verdict import Judge
from gateway.edge.watch import Event, Watch


class Findings(NamedTuple):
    """What a batch gives rise to.

    Attributes:
        events: That began, changed or ended.
        verdicts: On these readings or on earlier ones, in the order in which they were known.
        alarms: Of rules, that began or ended.
    """

    events: list[Event]
    verdicts: list[Verdict]
    alarms: Sequence[Alarm] = ()


class Filter:
    """All that judges readings on the device, and what it remembers.

    Args:
        channels: The channels and their rules.
        maintenance: Whose values are not judged, if any.
        alarms: The rules, if any.
    """

    def __init__(
        self, channels: Channels, maintenance: Maintenance | None = None, alarms: Alarms | None = None
    ) -> None:
        self._maintenance = maintenance
        self._alarms = alarms
        self._inspector = Inspector(channels)
        self._judge = Judge(channels, [test() for test in TESTS])
        self._watch = Watch(channels)

    def judge(self, readings: Readings) -> Findings:
        """Flags every value in place."""
        if self._maintenance is None:
            return self._judge_all(readings)
        with self._maintenance.unjudged(readings):
            return self._judge_all(readings)

    def _judge_all(self, readings: Readings) -> Findings:
        self._inspector.inspect(readings)
        verdicts = self._judge.judge(readings)
        alarms = () if self._alarms is None else self._alarms.look(readings)
        return Findings(self._watch.watch(readings), verdicts, alarms)

    @property
    def steps(self) -> dict[str, Step]:
        """The steps that keep state, by names that stay."""
        return {"inspector": self._inspector, "judge": self._judge, "watch": self._watch}

    def undo(self) -> None:
        """Takes the last batch back, but for what the detector and the judge have learnt: that is learnt once."""
        self._inspector.undo()
        self._watch.undo()
        if self._alarms is not None:
            self._alarms.undo()

    def finish(self) -> list[Verdict]:
        """Judges what waits for a later minute."""
        return self._judge.finish()

    def learning(self) -> int:
        """How many channels have had too few readings for the detector and for verdicts."""
        return self._judge.learning()
