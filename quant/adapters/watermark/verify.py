"""From read bits to a verdict: matching bits, the chance of as many, and the least that counts."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from quant.errors import InputError


def tail(bits: int, matches: int) -> float:
    """Chance of at least `matches` of `bits` fair coins, exact: P(Bin(bits, 1/2) >= matches)."""
    return sum(math.comb(bits, k) for k in range(max(matches, 0), bits + 1)) / 2**bits


def threshold(bits: int, rate: float) -> int | None:
    """Return the fewest matches whose chance is at most `rate`; None if even all of them are too few."""
    for matches in range(bits + 1):
        if tail(bits, matches) <= rate:
            return matches
    return None


@dataclass(frozen=True)
class Verdict:
    """What one reading says.

    Attributes
    ----------
    bits, matches : int
    p_value : float
        Chance that an unmarked picture matches as many bits, or more.
    needed : int or None
        Matches from which a picture counts as marked; None where no number would be enough.
    marked : bool
    """

    bits: int
    matches: int
    p_value: float
    needed: int | None
    marked: bool


def judge(read: str, message: str, rate: float, tries: int = 1) -> Verdict:
    """Compare read bits with a message at a false-positive rate.

    Parameters
    ----------
    read, message : str of 0 and 1
    rate : float
        Share of unmarked pictures that may be called marked.
    tries : int
        How many readings this is the best of; the p-value is multiplied by it (Bonferroni).

    Raises
    ------
    InputError
        The lengths differ, or the rate is not between 0 and 1.
    """
    check_rate(rate)
    if len(read) != len(message):
        raise InputError(
            f"the message has {len(message)} bits, the extractor reads {len(read)}: give one of as many"
        )
    matches = sum(a == b for a, b in zip(read, message, strict=True))
    needed = threshold(len(message), rate / tries)
    p_value = min(1.0, tries * tail(len(message), matches))
    return Verdict(len(message), matches, p_value, needed, needed is not None and matches >= needed)


def check_rate(rate: float) -> None:
    """Refuse a false-positive rate that is none."""
    if not 0 < rate < 1:
        raise InputError(f"false-positive rate {rate!r} is not between 0 and 1, as 1e-6")


def parse_message(text: str, bits: int) -> str:
    """Return a message as 0s and 1s, from 0s and 1s or from hexadecimal digits after ``0x``.

    Raises
    ------
    InputError
        Other characters, or not `bits` bits.
    """
    words = text.strip().replace("_", "").replace(" ", "")
    if re.fullmatch(r"0x[0-9a-fA-F]+", words):
        words = "".join(f"{int(digit, 16):04b}" for digit in words[2:])
    if not re.fullmatch(r"[01]+", words):
        raise InputError(f"message {text[:60]!r} is not bits: give 0s and 1s, or hexadecimal after 0x")
    if len(words) != bits:
        raise InputError(f"message {text[:60]!r} has {len(words)} bits; this extractor reads {bits}")
    return words
