"""What Linux tells of processes and of the machine, from /proc."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from tests.servers.conftest import Server

_TICKS = os.sysconf("SC_CLK_TCK")


def pid(server: Server) -> int:
    """Process id of a running server."""
    assert server._process is not None
    return server._process.pid


def cpu(pid: int) -> float:
    """CPU seconds of a process so far, all its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in MB (10^6 bytes): now, and at its highest so far."""

    now: float
    peak: float


def memory(pid: int) -> Memory:
    """Memory of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines())
    now, peak = (int(status[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return Memory(now, peak)


def written(pid: int) -> int:
    """Bytes that a process has caused to be written to disk so far."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text("ascii").splitlines())
    return int(counts["write_bytes"]) - int(counts["cancelled_write_bytes"])


def file_system(path: Path) -> str:
    """Type of the file system that a path is on."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _, mount, name, *_ = line.split()
        if path.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def describe() -> dict[str, str | int]:
    """The machine, for the record."""
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        if line.startswith(("model name", "Model"))
    ]
    memory_kb = int(Path("/proc/meminfo").read_text("ascii").split()[1])
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(memory_kb / 1e6),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
