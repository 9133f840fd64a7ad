"""Slows down who guesses secrets."""

import time
from collections import deque

from gateway.city.problems import ProblemError

_MAX_KEYS = 10_000


class Throttle:
    """Counts failures by key, in memory.

    Args:
        failures: How many failures a key may have within ``window``.
        window: Seconds.
        of: What is counted, for the answer: ``wrong attempts from this address``.
    """

    def __init__(self, failures: int, window: float, of: str) -> None:
        self._most, self._window, self._of = failures, window, of
        self._failures: dict[str, deque[float]] = {}

    def check(self, key: str) -> None:
        """Lets a key pass that has not failed too often.

        Raises:
            ProblemError: 429, with the time to wait.
        """
        now = time.monotonic()
        failures = self._failures.get(key, deque())
        while failures and failures[0] <= now - self._window:
            failures.popleft()
        if len(failures) >= self._most:
            wait = int(failures[0] + self._window - now) + 1
            raise ProblemError(429, f"Too many {self._of}; try again in {wait} s.", {"Retry-After": str(wait)})

    def failed(self, key: str) -> None:
        """Counts a failure."""
        now = time.monotonic()
        if len(self._failures) >= _MAX_KEYS:
            self._failures = {
                key: times for key, times in self._failures.items() if times and times[-1] > now - self._window
            }
        self._failures.setdefault(key, deque()).append(now)
