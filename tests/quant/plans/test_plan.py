"""Bits, bytes, shares and estimates of plans and ledgers, counted by hand."""

from __future__ import annotations

import pytest

import quant
from quant.formats.quantizer import int_quantizer
from quant.plans.cost import TrainingCost
from quant.plans.layer import LayerPlan
from quant.plans.ledger import LayerRecord, Ledger
from quant.plans.plan import Plan
from quant.plans.tables import to_html

FOUR, EIGHT = int_quantizer(4, "group", 64), int_quantizer(8, "token")
HEAD = {"recipe": "r", "method": "rtn", "config": {}, "model": "M", "bytes_other": 100}


def line(name: str, shape: tuple[int, ...], **changes: object) -> dict[str, object]:
    count = 1
    for size in shape:
        count *= size
    kind = "Linear" if len(shape) == 2 else "Conv2d"
    sizes = {"bytes_before": 2 * count, "bytes_after": 2 * count}
    return {"name": name, "kind": kind, "shape": shape, **sizes, **changes}


LINES = [
    line("a", (8, 64), weight=FOUR, activation=EIGHT, macs=600, bytes_after=272),
    line("b", (4, 8, 3, 3), weight=int_quantizer(8, "channel"), activation=EIGHT, macs=300, bytes_after=304),
    line("c", (8, 16), weight=FOUR, macs=75, bytes_after=80),
    line("d", (2, 8), reason="last <layer>", macs=25),
]


def test_bits_and_costs_of_a_layer() -> None:
    layers = [LayerPlan(**values) for values in LINES]
    assert [layer.bits for layer in layers] == ["W4A8", "W8A8", "W4A16", "W16A16"]
    assert [layer.cost for layer in layers] == ["weight", "activation", "weight", ""]
    both = LayerPlan(**{**LINES[0], "activation": int_quantizer(8, "group", 64)})
    assert both.cost == "weight + activation"
    assert LayerPlan(**line("e", (4, 8, 1, 1), activation=EIGHT, weight=FOUR)).cost == "weight"
    assert LayerPlan(**{**LINES[3], "bytes_before": 64, "bytes_after": 64}).bits == "W32A32"


def test_totals_of_a_plan() -> None:
    plan = Plan(**HEAD, layers=LINES, mac_rule="counted over one forward", seconds=1.5)
    assert plan.bytes_before == 100 + 1024 + 576 + 256 + 32 and plan.bytes_after == 100 + 272 + 304 + 80 + 32
    assert plan.mean_weight_bits == 8 * 688 / (512 + 288 + 128 + 16)
    assert plan.macs_share() == {"W16A16": 0.025, "W4A16": 0.075, "W4A8": 0.6, "W8A8": 0.3}
    assert "3 of 4 layers" in plan.headline() and "; MACs: W16A16 2.5 %, W4A16 7.5 %" in plan.headline()
    some = plan.model_copy(
        update={"layers": [*plan.layers[:3], plan.layers[3].model_copy(update={"macs": None})]}
    )
    some.mac_rule = "not measured"
    assert some.macs_share()["W8A8"] == 288 / 944 and "; weights: " in some.headline()
    stored = plan.to_dict()
    assert len(stored["formats"]) == 3  # each once
    assert [x["weight"] for x in stored["layers"]] == [0, 2, 0, None]
    assert [x["activation"] for x in stored["layers"]] == [1, 1, None, None]
    assert Plan.from_json(plan.to_json()) == plan
    rows = str(plan).splitlines()
    assert len(rows) == 2 + 4 and rows[1].split()[:3] == ["layer", "kind", "shape"]
    assert "last &lt;layer&gt;" in to_html("x", plan.layers) and "and 3 more" in to_html("x", plan.layers, 1)


def test_totals_of_a_ledger() -> None:
    by = [
        {"codes": 256, "scales": 16},
        {"codes": 288, "scales": 16},
        {"codes": 64, "scales": 8, "branch": 8},
        {},
    ]
    sqnr, paths = [30.0, 20.0, None, None], ["native: a", "simulated (reference)", "native: b", "float"]
    layers = [
        LayerRecord(**values, bytes_by=sizes, weight_sqnr_db=value, path=path)
        for values, sizes, value, path in zip(LINES, by, sqnr, paths, strict=True)
    ]
    ledger = Ledger(**HEAD, layers=layers, bytes_header=1000)
    assert ledger.by_category() == {"codes": 608, "scales": 40, "branch": 8, "unquantized": 132}
    assert sum(ledger.by_category().values()) == ledger.bytes_after == ledger.bytes_file - 1000
    assert [layer.name for layer in ledger.worst()] == ["b", "a"] and ledger.worst(1)[0].name == "b"
    assert ledger.summary()["lowest_weight_sqnr_db"] == 20.0
    assert ledger.arithmetic == "native in 2 of 3 layers"
    ledger.launches = "from CUDA graphs"
    assert ledger.arithmetic == "native in 2 of 3 layers, from CUDA graphs"
    assert quant.Ledger.from_json(ledger.to_json()) == ledger
    plain = [layer.model_copy(update={"path": "simulated (reference)"}) for layer in layers]
    assert Ledger(**HEAD, layers=plain).arithmetic == "simulated"


def test_time_of_training() -> None:
    """Four forwards a step, two operations a multiply-accumulate; a GPU's step has a least time."""
    cost = TrainingCost(steps=1000, rows=8, what="scales")
    assert cost.seconds(5_000_000) == pytest.approx(1000 * 8 * 4 * 2 * 5e6 / 2.5e10)
    assert cost.gpu_seconds(5_000_000) == pytest.approx(1000 * 0.04)
    assert cost.gpu_seconds(10**11) == pytest.approx(1000 * 8 * 4 * 2 * 1e11 / 2e13)
    assert cost.model_copy(update={"in_turn": 3}).gpu_seconds(5_000_000) == pytest.approx(1000 * 0.12)
    assert str(cost) == "trains 1,000 steps of 8 inputs (scales)"
