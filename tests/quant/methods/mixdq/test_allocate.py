"""The integer program against brute force, its proof, its speed, and tables of bits as presets."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

import quant
from quant.methods.mixdq import LayerBits, MixdqConfig
from quant.methods.mixdq.allocate import allocate
from quant.methods.mixdq.search import (
    SWEEP,
    byte_costs,
    decoupled,
    is_content,
    save_preset,
    with_weights,
)  # fmt: skip

CHOICES = (2, 3, 4, 8)


def problem(layers: int, seed: int = 0, choices=CHOICES):
    """Sizes over three decades, a long tail of sensitive layers, scores that mostly grow with the bits."""
    draw = random.Random(seed)
    scores, costs = {}, {}
    for index in range(layers):
        size, base = int(10 ** draw.uniform(3, 6)), draw.gauss(30, 10)
        scores[f"l{index}"] = {b: base + 6.02 * b + draw.gauss(0, 1) for b in choices}
        costs[f"l{index}"] = {b: size * b / 8 for b in choices}
    return scores, costs


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bits", [2.5, 4.0, 7.0])
def test_equals_brute_force(seed: int, bits: float) -> None:
    scores, costs = problem(8, seed)
    budget = sum(cost[8] for cost in costs.values()) * bits / 8
    names = list(scores)
    best = max(
        sum(scores[n][b] for n, b in zip(names, pick, strict=True))
        for pick in itertools.product(CHOICES, repeat=len(names))
        if sum(costs[n][b] for n, b in zip(names, pick, strict=True)) <= budget
    )
    found = allocate(scores, costs, budget)
    assert found.score == pytest.approx(best, rel=1e-9)
    assert found.cost <= budget * (1 + 1e-6) and set(found.choices) == set(names)
    assert found.cost == sum(costs[n][found.choices[n]] for n in names)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5, 1e-8])
def test_small_scores_are_solved_as_exactly_as_large_ones(scale: float, capfd) -> None:
    """Noise powers of single layers are 1e-8 to 1: HiGHS's absolute tolerances must not decide."""
    for seed in range(4):
        draw = random.Random(seed)
        scores, costs = {}, {}
        for index in range(7):
            size, sensitive = int(10 ** draw.uniform(3, 6)), 10 ** draw.uniform(-4, 0)
            scores[f"l{index}"] = {b: -scale * sensitive * 4.0 ** (2 - b) for b in CHOICES}
            costs[f"l{index}"] = {b: size * b / 8 for b in CHOICES}
        for bits in (3.0, 5.0, 7.5):
            budget = sum(cost[8] for cost in costs.values()) * bits / 8
            best = max(
                sum(score[b] for score, b in zip(scores.values(), pick, strict=True))
                for pick in itertools.product(CHOICES, repeat=len(scores))
                if sum(cost[b] for cost, b in zip(costs.values(), pick, strict=True)) <= budget
            )
            found = allocate(scores, costs, budget)
            assert found.score == pytest.approx(best, rel=1e-6)
            assert found.gap < 1e-6
    assert capfd.readouterr().out == ""


def test_a_budget_is_an_upper_bound_to_the_byte() -> None:
    costs = {"a": {4: 1e8, 8: 2e8}, "b": {4: 1e8, 8: 2e8}, "s": {4: 100.0, 8: 200.0}}
    scores = {"a": {4: 1.0, 8: 3.0}, "b": {4: 1.0, 8: 2.0}, "s": {4: 1.0, 8: 2.0}}
    for spare in (150, 199):
        found = allocate(scores, costs, 3e8 + spare)
        assert found.cost <= found.budget and found.choices == {"a": 8, "b": 4, "s": 4}
    assert allocate(scores, costs, 3e8 + 200).choices == {"a": 8, "b": 4, "s": 8}


def test_a_twelfth_layer_with_real_ties() -> None:
    scores = {f"l{i}": {4: 1.0, 8: 2.0} for i in range(12)}
    costs = {f"l{i}": {4: 4.0, 8: 8.0} for i in range(12)}
    assert allocate(scores, costs, 68.0).score == 12 + 5


def test_500_layers_4_choices_in_10_seconds_with_proof() -> None:
    scores, costs = problem(500, 7)
    for bits in (3.0, 5.0):
        budget = sum(cost[8] for cost in costs.values()) * bits / 8
        found = allocate(scores, costs, budget)
        assert found.seconds < 10
        assert found.gap < 1e-6 and found.bound >= found.score - 1e-6
        assert 0.99 * budget < found.cost <= budget * (1 + 1e-6)


def test_more_budget_is_never_worse() -> None:
    scores, costs = problem(40, 3)
    top = sum(cost[8] for cost in costs.values())
    found = [allocate(scores, costs, top * b / 8) for b in (2.0, 2.5, 3, 4, 5, 6, 7, 8)]
    assert all(a.score <= b.score for a, b in itertools.pairwise(found))


def test_a_band_is_met_to_its_edges() -> None:
    scores, costs = problem(40, 5)
    weights = sum(cost[8] for cost in costs.values())
    budget, edge = weights * 5.0 / 8, weights * 4.96 / 8
    found = allocate(scores, costs, budget, at_least=edge)
    assert edge * (1 - 1e-6) <= found.cost <= budget * (1 + 1e-6)
    # choices that are too cheap: the lower edge makes them impossible
    low = {n: {2: s[2], 3: s[3]} for n, s in scores.items()}
    with pytest.raises(quant.InputError, match="widen the band"):
        allocate(low, costs, budget, at_least=edge)


def test_impossible_budget_is_one_clear_line() -> None:
    scores, costs = problem(10)
    least = sum(cost[2] for cost in costs.values())
    with pytest.raises(quant.InputError, match="no allocation meets the budget") as caught:
        allocate(scores, costs, least * 0.99)
    assert f"{least:,.6g}" in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    allocate(scores, costs, least)
    with pytest.raises(quant.InputError, match="no layers"):
        allocate({}, {}, 1.0)
    with pytest.raises(quant.InputError, match="budget is nan"):
        allocate(scores, costs, float("nan"))
    with pytest.raises(quant.InputError, match="'l0' has a score at 8 and no cost"):
        allocate(scores, {**costs, "l0": {2: 1.0, 3: 1.0, 4: 1.0}}, least * 2)
    scores["l3"][4] = float("nan")
    with pytest.raises(quant.InputError, match="'l3' at 4 is not finite"):
        allocate(scores, costs, least * 2)


def test_two_groups_share_one_budget() -> None:
    scores, costs = problem(60, 2)
    content = {n: s for i, (n, s) in enumerate(scores.items()) if i % 3}
    quality = {n: s for i, (n, s) in enumerate(scores.items()) if not i % 3}
    budget = sum(cost[8] for cost in costs.values()) * 5 / 8
    found = decoupled(content, quality, costs, budget)
    assert len(found) > 5 and np.allclose(SWEEP, np.linspace(0.46, 1.36, 10))  # content over quality
    for candidate in found:
        assert set(candidate.choices) == set(scores)
        assert candidate.cost <= budget * (1 + 1e-6)
        size = {name: sum(costs[n][8] for n in part) for name, part in (("c", content), ("q", quality))}
        share = [part.budget / size[name] for part, name in zip(candidate.parts, "cq", strict=True)]
        assert share[0] / share[1] == pytest.approx(candidate.k)
    one = allocate(scores, costs, budget).score
    assert all(sum(p.score for p in c.parts) <= one + 1e-6 for c in found)
    with pytest.raises(quant.InputError, match="no split"):
        decoupled(content, quality, costs, 1.0)
    assert len(decoupled({}, scores, costs, budget)) == 1


def test_names_say_content_or_quality() -> None:
    assert is_content("mid_block.attentions.0.transformer_blocks.0.attn2.to_k")
    assert is_content("down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2")
    assert not is_content("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k")
    assert not is_content("down_blocks.1.resnets.0.conv1")


def test_byte_costs_are_the_plans(tiny) -> None:
    model, config = tiny.build("unet"), MixdqConfig(activation_bits=None, weight_bits=4)
    costs = byte_costs(model, config, CHOICES)
    for line in quant.plan(model, config).quantized:
        assert costs[line.name][4] == line.bytes_after
        assert costs[line.name][2] < costs[line.name][3] < costs[line.name][8]


def test_a_table_is_a_preset(tiny, tmp_path) -> None:
    model = tiny.build("unet")
    names = [line.name for line in quant.plan(model, "mixdq-w4a8").quantized]
    config = quant.recipes.resolve("mixdq-w4a8")[2]
    config = with_weights(config, {names[3]: 8, names[5]: 2})
    inputs = {names[3]: LayerBits(weight=8, activation=None), names[7]: LayerBits(weight=4, activation=4)}
    config = config.model_copy(update={"table": {**config.table, **inputs}})
    again = with_weights(config, {names[3]: 2}).table[names[3]]
    assert again == LayerBits(weight=2, activation=None)  # inputs stay what the table had
    file = save_preset(tmp_path / "mine.yaml", config, "made by a test")
    assert quant.recipes.resolve(str(file))[2] == config
    plan = quant.plan(model, str(file))
    assert plan.recipe == "mine" and plan.method == "mixdq"
    bits = {line.name: line.bits for line in plan.quantized}
    assert (bits[names[3]], bits[names[5]], bits[names[7]]) == ("W8A32", "W2A8", "W4A4")
    assert config.table[names[7]] == LayerBits(weight=4, activation=4)
    reasons = {line.name: line.reason for line in plan.quantized}
    assert "allocation table" in reasons[names[3]] and reasons[names[4]] is None


def test_broken_preset_files_are_one_clear_line(tiny, tmp_path) -> None:
    model, file = tiny.build("odd"), tmp_path / "x.yaml"
    with pytest.raises(quant.MissingDataError, match="no preset file"):
        quant.plan(model, str(file))
    for text in ("title: only", "a: [", "- 1", "\xff"):
        file.write_text(text, encoding="latin-1")
        with pytest.raises(quant.InputError, match="is not a preset") as caught:
            quant.plan(model, str(file))
        assert "\n" not in str(caught.value)
    file.write_text(
        "title: t\npolicy: paper\nmethod: mixdq\nconfig: {table: {a: {weight: 9, activation: 8}}}"
    )
    with pytest.raises(quant.InputError, match=r"mixdq: table.a.weight = 9"):
        quant.plan(model, str(file))
