"""Reasons: why a value is not good, as a bit set."""

from enum import IntFlag


class Reason(IntFlag):
    """Why a value is not good; stored as names joined by ``+``."""

    NO_TIME = 1  # the payload had no time: time of arrival
    FUTURE = 2  # further ahead of the gateway's clock than is believed
    MISSING = 4  # the sensor says that it has no value
    GROSS_RANGE = 8  # outside what the sensor can measure
    SUSPECT_RANGE = 16  # outside what is plausible here
    RATE_OF_CHANGE = 32  # faster than the quantity can change
    FLAT_LINE = 64  # has not moved for too long
    OUT_OF_ORDER = 128  # older than the channel's last reading, or stored by the sender; tests over time are skipped
    DUPLICATE_TIME = 256  # another value for a time that already has one
    CLOCK = 512  # the gateway did not know the time either: its arrival is an estimate
    PAST = 1024  # before the earliest time that is believed
    SPIKE = 2048  # far from both values before
    ATTENUATED = 4096  # the range of a window is too small
    CLIMATOLOGY = 8192  # not usual at this month and hour
    GAP = 16384  # the first after a gap: no more than a remark
    CONTRADICTION = 32768  # quantities of the message contradict each other
    DIAGNOSTICS = 65536  # the sensor says that it is not well
    UNUSUAL = 131072  # surprising to the channel itself; see `gateway.edge.detect`
    MAINTENANCE = 262144  # the sensor is being worked on: not judged
    STUCK = 524288  # from here on: part of a fault that lasts, by verdict; in the order of `faults.look.What`
    FAULT_SPIKE = 1048576
    DRIFT = 2097152
    OFFSET = 4194304
    NOISE = 8388608
    DROPOUT = 16777216
    UNIT = 33554432
    SKEW = 67108864
    SENDER_SUSPECT = 134217728  # the sender itself doubts it: maintenance, calibration, typed in by hand, stale
    OVER_RANGE = 268435456  # the sender says that it is beyond what the instrument can measure
    SENDER_BAD = 536870912  # the sender itself knows it to be wrong


def reason_text(bits: int) -> str:
    """Names of the reasons, such as ``gross_range+flat_line``."""
    return "+".join(reason.name.lower() for reason in Reason if bits & reason and reason.name)
