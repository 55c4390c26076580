"""A layer's own settings: an override of every layer is the recipe with that setting, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import quant
from quant.checkpoint.writing import collect
from quant.registry import get_method

TRAINED = {"train_steps": 2, "train_rows": 2, "calibration_rows": 4, "held_out_rows": 0}
# where the defaults would leave a setting nothing to do, or take long
BASES: dict[str, dict[str, Any]] = {
    "eda_dm": {"iterations": 1, "points": 6, "batch_size": 2},
    "svdquant": {"iterations": 2, "scales": "pow2", "samples": 2, "steps": 2, "rows": 32, "rank": 8,
                 "group": 16, "keep": ("first", "last"), "residual": "gptq", "smooth_points": 4},
    "lowbit_fp": {"weight_bits": 4, "rounding": "learned", "iterations": 2, "samples": 2, "rows": 32},
    "lrq_dit": {"rotation": "outlier", "samples": 2, "greedy_steps": 2, "skip": ("first", "last")},
    "dgq": {"samples": 2, "groups": 3, "attention_octaves": 9.0, "skip": ("first", "last")},
    "efficientdm": {**TRAINED, "rank": 4},
    "quest": {**TRAINED, "probe_rows": 1},
    "binarydm": {**TRAINED, "warm_up": 0, "outer": 0.3},
    "qvgen": {**TRAINED, "rank": 2},
    "mixdq": {"points": 6, "skip": ("time",)},
    "rtn": {"weight_bits": 4, "activation_bits": 4},
}  # fmt: skip
# bases of single settings, which exclude others or need them
SPECIAL: dict[tuple[str, str], dict[str, Any]] = {
    ("svdquant", "numbers"): {"scales": "real", "group": None},
    ("mixdq", "momentum"): {"batch_size": 2},
    ("svdquant", "svd"): {"rank": 2},
    ("lowbit_fp", "values"): {"values": 256},
    ("lowbit_fp", "penalty"): {"iterations": 20, "learning_rate": 1.0},
    ("lrq_dit", "threshold"): {"rotation": "adaptive"},
    ("qvgen", "start"): {"helper": "kept"},
    ("qvgen", "tuned"): {"helper": "kept", "start": "svdquant"},
    ("qvgen", "masters"): {"helper": "kept", "start": "svdquant"},
    ("binarydm", "unroll"): {"mimicking": 0},
}
WITHOUT_EFFECT = {
    ("svdquant", "block"),  # the same sums in another order
    ("svdquant", "shift"),  # no GELU in this model; test_svdquant.py
    ("lowbit_fp", "normalized"),  # uniform weights choose E1M2, whose steps are equal
    ("mixdq", "sink_ratio"),  # no sinks in this recording; test_mixdq_settings.py
    ("dgq", "sink_share"),  # the same
    ("binarydm", "outer"),  # of these blocks none lies between; methods/binarydm/test_core.py
}
# one of each kind: edges, time, convolutions with a shortcut, attention to tokens, the layer after a GELU
ATTENTION = "mid_block.attentions.0.transformer_blocks.0"
LAYERS = ["conv_*", "time_embedding.linear_1", "mid_block.resnets.0.conv1", "up_blocks.0.resnets.0.*",
          f"{ATTENTION}.attn2.to_[kq]", f"{ATTENTION}.ff.net.*"]  # fmt: skip
LAYER = "mid_block.resnets.0.conv1"


def others(schema: dict[str, Any], value: Any) -> Iterator[Any]:
    """Other values that a field's JSON schema allows, plain ones first."""
    for option in schema.get("anyOf", [schema]):
        if "enum" in option or "const" in option:
            yield from option.get("enum", [option.get("const")])
        elif option.get("type") == "boolean":
            yield not value
        elif option.get("type") in ("integer", "number"):
            base = value if value is not None else option.get("minimum", 0.5)
            yield from (type(base)(base * 2), type(base)(base / 2), base + 1, base - 1, 16)
        elif option.get("type") == "array":
            yield from ((), tuple(option["items"].get("enum", ["*attn*"]))[:1])
        elif option.get("type") == "object":
            yield {LAYER: {"weight": 3, "activation": 5}}
        elif option.get("type") == "null":
            yield None


def base_of(method: str, name: str) -> Any:
    """Config to start from, where field `name` is to change."""
    return get_method(method).config(**{**BASES.get(method, {}), **SPECIAL.get((method, name), {})})


def changed(method: str, name: str) -> Any:
    """Pick a config that differs in one field alone, or None."""
    config, base = get_method(method).config, base_of(method, name)
    schema = config.model_json_schema()["properties"][name]
    for value in others(schema, getattr(base, name)):
        try:
            made = config.model_validate({**base.model_dump(), name: value})
        except ValidationError:
            continue
        if made != base:
            return made
    return None


FIELDS = [(m, f) for m in quant.list_methods() for f in get_method(m).config.model_fields]
RUN = [(m, f) for m, f in FIELDS if f in get_method(m).whole_run]
OWN = [(m, f) for m, f in FIELDS if f not in get_method(m).whole_run]


def test_settings_of_the_whole_run_are_settings() -> None:
    for method in quant.list_methods():
        assert set(get_method(method).whole_run) <= set(get_method(method).config.model_fields), method


@pytest.fixture(scope="module")
def model(tiny):
    """Give one tiny U-Net to all: planning changes nothing, and what quantizes it restores it."""
    return tiny.build("level")


@pytest.mark.parametrize(("method", "name"), RUN, ids=map("-".join, RUN))
def test_what_holds_for_the_whole_run_is_refused(method: str, name: str, model) -> None:
    base, other = base_of(method, name), changed(method, name)
    own = {LAYER: {name: getattr(other, name)}}
    with pytest.raises(quant.InputError, match=rf"{LAYER}.*{name} = .*change it in the recipe"):
        quant.plan(model, base, overrides=own)
    quant.plan(model, base, overrides={LAYER: {name: getattr(base, name)}})


@pytest.fixture(scope="module")
def made(model, recorded):
    """``made(config, **options)``: formats and bytes to store of a tiny U-Net, made once for each config."""
    known: dict[str, dict[str, Any]] = {}

    def get(config: Any, **options: Any) -> dict[str, Any]:
        key = f"{type(config).__name__} {config.model_dump_json()} {options}"
        if key not in known:
            ledger = quant.quantize_(model, config, trajectories=recorded("level"), include=LAYERS, **options)
            tensors = {
                key: (x.dtype, x.reshape(-1).view(torch.uint8).numpy().tobytes())
                for key, x in collect(model).items()
            }
            lines = {x.name: x.as_plan().model_copy(update={"settings": {}}) for x in ledger.layers}
            known[key] = {**lines, **tensors, "attention": ledger.attention}
            quant.restore_(model)
        return known[key]

    return get


@pytest.mark.parametrize(("method", "name"), OWN, ids=map("-".join, OWN))
def test_an_override_of_all_layers_is_the_recipe_with_that_setting(method: str, name: str, made) -> None:
    base, other = base_of(method, name), changed(method, name)
    assert other is not None, f"no other value of {name}"
    overridden = made(base, overrides={"*": {name: getattr(other, name)}})
    wanted = made(other)
    assert overridden.keys() == wanted.keys()
    assert [key for key in wanted if overridden[key] != wanted[key]] == []
    if (method, name) not in WITHOUT_EFFECT:
        assert wanted != made(base), "another value changes nothing: an override that is ignored would pass"
