from __future__ import annotations

import pytest

from quant.adapters.watermark.core import random_message
from quant.adapters.watermark.verify import judge, parse_message, tail, threshold
from quant.errors import InputError


@pytest.mark.parametrize(
    ("bits", "rate", "needed"),
    [(16, 5e-3, 14), (24, 1e-6, 24), (32, 5e-3, 24), (48, 5e-3, 34), (48, 1e-3, 36), (48, 1e-6, 41),
     (64, 1e-6, 51), (100, 1e-6, 74), (16, 1e-6, None)],
)  # fmt: skip
def test_thresholds_are_binomial_tails(bits: int, rate: float, needed: int | None) -> None:
    assert threshold(bits, rate) == needed


def test_a_tail_is_what_scipy_says() -> None:
    from scipy.stats import binom

    for matches in (0, 24, 40, 48):
        assert tail(48, matches) == pytest.approx(binom.sf(matches - 1, 48, 0.5), rel=1e-9)


def test_a_verdict_needs_enough_bits() -> None:
    message = random_message(48, 0)
    right = judge(message, message, 1e-6)
    assert right.marked and right.matches == 48 and right.p_value == pytest.approx(2.0**-48)
    inverse = message.translate(str.maketrans("01", "10"))
    assert (
        judge(inverse, message, 1e-6).matches == 0
    )  # errors with a key and with its complement add up to all
    few = judge(message[:16], message[:16], 1e-6)  # all match, and it is still not enough
    assert few.needed is None and not few.marked
    best = judge(message, message, 1e-6, tries=100)
    assert best.p_value == pytest.approx(100 * 2.0**-48)
    assert best.needed == threshold(48, 1e-8) != right.needed


def test_messages_are_bits_or_hexadecimal_of_the_right_length() -> None:
    assert parse_message("0xF0", 8) == parse_message("1111_0000", 8) == "11110000"
    for text in ("", "0xZZ", "1012", "hello"):
        with pytest.raises(InputError, match="is not bits"):
            parse_message(text, 8)
    with pytest.raises(InputError, match="has 4 bits; this extractor reads 8"):
        parse_message("1010", 8)
    with pytest.raises(InputError, match="the message has 4 bits"):
        judge("10101010", "1010", 0.01)
    with pytest.raises(InputError, match="not between 0 and 1"):
        judge("10", "10", 0.0)
