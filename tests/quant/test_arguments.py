"""What `plan` and `quantize_` refuse before any work: values that are not finite, arguments, tied weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import quant


@pytest.mark.parametrize(
    "name", ["mid_block.resnets.0.conv1.bias", "mid_block.resnets.0.norm1.weight", "conv_in.weight"]
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_any_tensor_that_is_not_finite_is_named(name: str, value: float, tiny) -> None:
    model = tiny.build("unet")
    model.get_parameter(name).data.view(-1)[3] = value
    says = rf"'{name}' has 1 of \d+ values that are NaN or infinite: repair the checkpoint$"
    for options in ({}, {"exclude": [name.rpartition(".")[0]]} if "norm" not in name else {}):
        with pytest.raises(quant.InputError, match=says):
            quant.quantize_(model, "rtn-w8a8", **options)


def test_buffers_count_and_codes_are_no_weights(tiny) -> None:
    model = tiny.build("odd")
    model.register_buffer("table", torch.tensor([torch.nan]))
    with pytest.raises(quant.InputError, match="'table' has 1 of 1 values"):
        quant.quantize_(model, "rtn-w8a8")
    model = tiny.build("odd").to(torch.float8_e4m3fn)
    with pytest.raises(quant.InputError, match=r"is float8_e4m3fn: .*convert it to float16"):
        quant.quantize_(model, "rtn-w8a8")


CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "include": ({"include": "*conv*"}, r"include = '\*conv\*' must be a list .*write include=\['\*conv\*'\]"),
    "exclude": ({"exclude": "first"}, "exclude = 'first' must be a list"),
    "number": ({"include": [4]}, "include holds 4, which is no wildcard"),
    "override": ({"overrides": {"*": 4}}, r"overrides\['\*'\] = 4: give a dict"),
    "word": ({"overrides": {"*": "skp"}}, "= 'skp': give a dict of the method's settings, or 'skip'"),
    "list": ({"overrides": ["*"]}, "overrides must be a dict .* got list"),
    "negative": ({"seed": -1}, "seed = -1: give a whole number from 0 to 4294967295"),
    "text": ({"seed": "x"}, "seed = 'x'"), "huge": ({"seed": 2**32}, "seed = 4294967296"),
    "truth": ({"seed": True}, "seed = True"),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_arguments_of_the_wrong_kind(case: str, tiny) -> None:
    options, says = CALLS[case]
    with pytest.raises(quant.InputError, match=says) as caught:
        quant.quantize_(tiny.build("odd"), "rtn-w8a8", **options)
    assert "\n" not in str(caught.value)


def test_tied_weights_are_counted_once() -> None:
    first, second = nn.Linear(16, 16), nn.Linear(16, 16)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    whole = sum(p.numel() * 4 for p in model.parameters())
    planned = quant.plan(model, "rtn-w8a8")
    assert planned.bytes_other == 2 * 16 * 4 and planned.bytes_before == whole
    assert quant.plan(model, "rtn-w8a8", exclude=["*"]).bytes_after == whole
    half = quant.plan(model, "rtn-w8a8", exclude=["1"])
    assert half.layers[1].bytes_after == 16 * 16 * 4
    ledger = quant.quantize_(model, "rtn-w8a8")
    assert ledger.bytes_after == planned.bytes_after
