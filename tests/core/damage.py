"""Random damage to bytes: what a bad disk, a bad link or a bad neighbour might make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

__all__ = ["BATCH", "damaged"]

BATCH = 100
"""How many damaged forms one example of hypothesis stands for; it draws only their seed."""

_TOKENS = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\0",
    b"=",
    b"NaN",
    b"1e999",
    b"null",
    b" ",
)


def damaged(originals: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """`BATCH` damaged forms of *originals*, each by one to three changes; now and then a splice of two."""
    random = Random(seed)
    for _ in range(BATCH):
        data = bytearray(random.choice(originals))
        for _ in range(random.randint(1, 3)):
            _change(data, random.choice(originals), random)
        yield bytes(data)


def _change(data: bytearray, other: bytes, random: Random) -> None:
    at = random.randrange(len(data) + 1)
    end = min(len(data), at + random.choice((1, 1, 2, 8, 64)))
    match random.randrange(7):
        case 0 if data:
            data[at % len(data)] ^= 1 << random.randrange(8)
        case 1:
            del data[at:end]
        case 2:
            data[at:at] = random.randbytes(random.randint(1, 8))
        case 3:
            data[at:at] = random.choice(_TOKENS)
        case 4:
            data[at:end] = random.choice(_TOKENS)
        case 5:
            data[at:at] = data[at:end]
        case _:
            data[at:] = other[random.randrange(len(other) + 1) :]
