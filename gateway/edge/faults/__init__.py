"""What tells a broken sensor from a true event: one module a fault."""

from gateway.edge.faults.drift import Drift
from gateway.edge.faults.dropout import Dropout
from gateway.edge.faults.look import Test
from gateway.edge.faults.noise import Noise
from gateway.edge.faults.offset import Offset
from gateway.edge.faults.skew import Skew
from gateway.edge.faults.spike import Spike
from gateway.edge.faults.stuck import Stuck
from gateway.edge.faults.unit import Unit

TESTS: tuple[type[Test], ...] = (Stuck, Dropout, Spike, Unit, Offset, Noise, Skew, Drift)
"""In the order in which they look at a reading."""
