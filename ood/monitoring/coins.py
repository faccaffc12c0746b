"""Chance that a replay repeats: a number for each item, from a seed and nothing else."""

_MASK = 2**64 - 1


def coin(seed: int, number: int) -> float:
    """Uniform in [0, 1), the same on every machine and in any order of asking.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) at the position that the number says, of the
    sequence that the seed starts.
    """
    return (_mix(_mix(seed & _MASK) + number * 0x9E3779B97F4A7C15) >> 11) / 2**53


def _mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
