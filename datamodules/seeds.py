"""Seeds of everything random: pure functions of a key, the same in every process.

:func:`seed_of` seeds what is drawn while a run goes on. :func:`split_seed` and
:func:`order_seed` seed the rows of a split and their order in an epoch; each has a law of its own,
which the published results and every user's splits rest on.
"""

import numpy as np

Key = int | tuple["Key", ...]

SPLITS = ("train", "val", "test", "predict")
_EPOCH_STRIDE = 1_000_003  # a prime, so that (seed, epoch) pairs do not collide for small seeds

_MASK = 2**64 - 1
_MERSENNE = 2**61 - 1
_PRIMES = (11400714785074694791, 14029467366897019727, 2870177450012600261)


def seed_of(*key: Key) -> int:
    """A seed in [0, 2^63) of a key; other keys give unrelated seeds.

    CPython's hash of a tuple of integers (xxHash), written out, since Python does not promise it
    to stay.

    Args:
        *key: Integers, or keys of integers, which count as their hash.
    """
    return _mix(key) & (2**63 - 1)


def _mix(key: tuple[Key, ...]) -> int:
    """64-bit hash of a tuple, unsigned."""
    first, second, last = _PRIMES
    state = last
    for part in key:
        state = (state + _lane(part) * second) & _MASK
        state = (((state << 31) | (state >> 33)) * first) & _MASK
    state = (state + (len(key) ^ last ^ 3527539)) & _MASK
    return 1546275796 if state == _MASK else state


def _lane(part: Key) -> int:
    """64-bit hash of an integer, unsigned."""
    if isinstance(part, tuple):
        part = _mix(part)
        part -= (part >> 63) << 64  # a hash is a signed number
    value = abs(part) % _MERSENNE
    value = -value if part < 0 else value
    return (-2 if value == -1 else value) & _MASK


def split_seed(seed: int, split: str) -> int:
    """Seed of one split: a pure function of its arguments, unrelated between splits and seeds."""
    key = [seed, SPLITS.index(split)] if split in SPLITS else [seed, *split.encode()]
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def order_seed(seed: int, epoch: int) -> int:
    """Seed of the order of the rows in an epoch."""
    return seed + _EPOCH_STRIDE * epoch
