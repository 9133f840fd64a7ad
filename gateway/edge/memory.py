"""How the agent's process holds memory: a gateway runs for years beside others on a small device."""

import contextlib
import ctypes
import gc

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_GIVEN_BACK = 128 * 2**10  # bytes; glibc's own value, which it raises with use until it is set


def settle() -> None:
    """Lets the C library give memory back, and spares the garbage collector what stays for good.

    Called once, when everything is imported and before there are threads. A burst leaves nothing behind: large blocks
    go back to the system when they are freed, and all threads share one arena.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc has no mallopt, or ignores it
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, _GIVEN_BACK), (_MMAP_THRESHOLD, _GIVEN_BACK)):
            mallopt(option, value)
    gc.collect()
    gc.freeze()
