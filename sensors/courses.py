"""Random courses that are pure functions of a seed and of time: a simulation starts anywhere and runs at any speed.

A course has no state: the noise of a moment is a hash of the moment.
"""

import math
from functools import cache
from hashlib import blake2b

_WORD = (1 << 64) - 1


def _mix(word: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): 64 well mixed bits."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)


class Noise:
    """Named sources of noise under one seed.

    Args:
        seed: Same seed, same noise.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._key = cache(self._hash)

    def _hash(self, name: str) -> int:
        return int.from_bytes(blake2b(f"{self._seed}/{name}".encode(), digest_size=8).digest(), "big")

    def _bits(self, name: str, moment: int) -> int:
        return _mix((self._key(name) + moment * 0x9E3779B97F4A7C15) & _WORD)

    def uniform(self, name: str, moment: int) -> float:
        """A number in [0, 1) for a moment (any integer), independent from one moment to the next."""
        return self._bits(name, moment) / (_WORD + 1)

    def white(self, name: str, moment: int) -> float:
        """A near-normal number with mean 0 and deviation 1, never beyond ±3.5: the sum of four 16-bit numbers."""
        bits = self._bits(name, moment)
        total = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48)
        return (total / 65536 - 2) * math.sqrt(3)

    def smooth(self, name: str, time: float, period: float) -> float:
        """A continuous course around 0, deviation about 0.8, that forgets itself within ``period`` seconds."""
        whole, part = divmod(time / period, 1)
        before, after = self.white(name, int(whole)), self.white(name, int(whole) + 1)
        return before + (after - before) * part * part * (3 - 2 * part)


def bump(progress: float) -> float:
    """A raised cosine: 0 at progress 0 and 1, 1 at a half, 0 outside."""
    return 0.5 - 0.5 * math.cos(2 * math.pi * progress) if 0 < progress < 1 else 0.0


def plateau(progress: float, edge: float = 0.15) -> float:
    """Rises to 1 within the first ``edge`` of the progress, and falls within the last."""
    return max(0.0, min(1.0, progress / edge, (1 - progress) / edge))
