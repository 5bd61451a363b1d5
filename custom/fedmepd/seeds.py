"""One seed per job; every site, round and worker derives its own from it."""

from __future__ import annotations

import hashlib

# Of a site, as parts of a seed: one text of 32 random bytes, or nothing where training is to be reproducible. It goes
# into every seed by itself: a seed has 31 bits, few enough to try them all.
Secret = tuple[str, ...]


def derive_seed(seed: int, *parts: str | int) -> int:
    """Returns a 31-bit seed that depends on ``seed`` and every part, such as site name and round.

    Hashing keeps the streams of neighbouring sites and rounds unrelated, whatever the order of the calls.
    """
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") & 0x7FFFFFFF
