"""QVGen: the helper's schedule, its removal, and a model that is plain in the end."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import quant
from quant.layers.install import quant_layers
from quant.methods.qvgen import QvgenConfig
from quant.methods.qvgen.helper import Helped, factors
from quant.methods.qvgen.schedule import Decay
from quant.training.policy import by_channel

CONFIG = QvgenConfig(train_steps=12, train_rows=2, calibration_rows=4, held_out_rows=0, rank=4, look_every=4)


def helped(rank: int = 8, rows: int = 24, columns: int = 40) -> Helped:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    return Helped(weight, by_channel(3), "linear_weight", rank)


def test_ranks_halve_and_the_factor_falls_within_each_phase() -> None:
    decay = Decay.of(32, 1998, "cosine")
    assert decay.phases == 6 and decay.length == 333
    ranks = [decay.rank_at(step) for step in range(2000)]
    assert list(dict.fromkeys(ranks)) == [32, 16, 8, 4, 2, 1, 0] and ranks[-3:] == [1, 0, 0]
    for phase in range(6):
        u = [decay.factor_at(phase * 333 + t) for t in range(333)]
        assert u[0] == 1 and all(a >= b for a, b in pairwise(u)) and u[-1] < 1e-4
        assert u[100] == pytest.approx((1 + math.cos(math.pi * 100 / 333)) / 2)
    assert [step for step in range(2000) if decay.ends_phase(step)] == [333 * k - 1 for k in range(1, 7)]
    linear = Decay.of(32, 1998, "linear")
    assert linear.factor_at(111) == pytest.approx(2 / 3)
    once = Decay.of(32, 1998, "cosine", at_once=True)
    assert {once.rank_at(step) for step in range(1998)} == {32} and once.rank_at(1998) == 0
    assert once.factor_at(1500) == 1


@pytest.mark.parametrize(("steps", "rank"), [(0, 0), (1, 1), (2, 2), (3, 4), (6, 32), (5, 16)])
def test_few_steps_start_at_a_smaller_rank(steps: int, rank: int) -> None:
    decay = Decay.of(32, steps, "cosine")
    assert decay.rank == rank and decay.rank_at(steps) == 0


def test_the_start_is_what_rounding_lost_in_its_main_directions() -> None:
    side = helped(8)
    lost = (side.master - side.rounded()).detach()
    left = (side.master - side.weight()).detach().square().sum()
    tail = torch.linalg.svdvals(lost.double())[8:].square().sum()
    torch.testing.assert_close(left.double(), tail, rtol=1e-4, atol=1e-6)
    whole = Helped(side.master.detach()[:16, :16], by_channel(3), "linear_weight", 16)
    torch.testing.assert_close(whole.weight(), whole.master, rtol=0, atol=1e-5)
    assert helped(1024).most == 16  # the largest power of two within the layer


def test_a_cut_leaves_the_weight_where_it_was() -> None:
    side = helped(8)
    side.up.data += 0.01 * torch.randn(side.up.shape, generator=torch.Generator().manual_seed(1))
    side.at(8, 1e-6)  # the end of a phase: the half has all but vanished
    before = side.weight().detach()
    assert side.cut(4) and not side.cut(4)
    torch.testing.assert_close(side.weight(), before, rtol=0, atol=1e-5)
    assert not side.up[:, 4:].any() and not side.down[4:].any()
    sizes = side.up[:, :4].norm(dim=0)
    assert bool((sizes[:-1] >= sizes[1:] - 1e-6).all())  # ordered anew
    side.at(4, 0.5)
    assert side.gamma().tolist() == [1, 1, 0.5, 0.5, 0, 0, 0, 0]


def test_codes_wait_until_the_helper_is_gone() -> None:
    side = helped(2)
    with pytest.raises(RuntimeError, match="still has rank 2"):
        side.encoded()
    side.cut(0)
    assert torch.equal(side.encoded().decode(), side.weight().detach())
    assert torch.equal(side.weight(), side.rounded())


def test_a_layer_of_smaller_rank_waits_its_turn() -> None:
    side = helped(2)
    side.at(8, 0.3)
    assert side.gamma().tolist() == [1, 1]
    assert not side.cut(4)
    side.at(2, 0.3)
    assert side.gamma().tolist() == [1, pytest.approx(0.3)]


def test_factors_are_the_best_of_their_rank() -> None:
    matrix = torch.randn(12, 20, generator=torch.Generator().manual_seed(2))
    up, down = factors(matrix, 5)
    values = torch.linalg.svdvals(matrix)
    torch.testing.assert_close((matrix - up @ down).square().sum(), values[5:].square().sum())


@pytest.mark.parametrize("helper", ["decay", "at-once", "none"])
def test_nothing_of_the_helper_is_left(helper: str, tiny, recorded, tmp_path) -> None:
    model = tiny.build("unet")
    config = CONFIG.model_copy(update={"helper": helper})
    ledger = quant.quantize_(model, config, trajectories=recorded("unet"), include=["mid_block.*"])
    for layer in quant_layers(model).values():
        assert layer.branch is None and layer.transform is None
    names = quant.export(model, tmp_path / "m.safetensors")
    from safetensors import safe_open

    with safe_open(names, "pt") as file:
        assert not [key for key in file.keys() if key.endswith((".up", ".down"))]
    assert ledger.notes["helper_phases"] == (0 if helper == "none" else 3)
    assert ledger.notes["gradient_norm"] > 0
    record = next(r for r in ledger.layers if not r.skipped)
    assert set(record.bytes_by) == {"codes", "scales", "zero_points"}


def test_rules_are_the_papers_and_the_factor_of_a_step_is_in_force(tiny, recorded, monkeypatch) -> None:
    from quant.training.student import Student

    seen: dict[str, Any] = {}

    def look(self: Student, key: str, groups: Any, **rest: Any) -> Any:
        seen.update(rest, groups=groups, layers=self.layers)
        rest["prepare"](5)
        seen["gamma"] = [layer.side.gamma().tolist() for layer in self.layers.values()]
        seen["early"] = rest["keep"]()
        return SimpleNamespace(norms=[3.0])

    monkeypatch.setattr(Student, "train", look)
    config = CONFIG.model_copy(update={"train_steps": 40, "plain": 0.25})
    some: dict[str, Any] = {"trajectories": recorded("unet"), "include": ["mid_block.resnets.0.conv*"]}
    quant.quantize_(tiny.build("unet"), config, **some)
    rules = seen["rules"]
    assert (rules.schedule, rules.warm_up, rules.clip, rules.betas) == ("cosine", 4, 1.0, (0.9, 0.95))
    # 40 steps less a quarter are three phases of ten
    u = (1 + math.cos(math.pi * 5 / 10)) / 2
    assert all(gamma == pytest.approx([1, 1, u, u]) for gamma in seen["gamma"])
    assert not seen["early"] and seen["keep"]()  # what may be kept has no helper any more
    for group in seen["groups"]:
        parts = {name.split(".side.")[-1].split(".")[0] for name in group.parameters if ".side." in name}
        assert group.decay == (1e-4 if parts == {"master"} else 0)
        if parts & {"master", "up", "down"}:
            assert group.rate == 3e-5


def test_inputs_are_dynamic_by_token_and_asymmetric(tiny) -> None:
    lines = {line.name: line for line in quant.plan(tiny.build("unet"), CONFIG).layers}
    assert lines["conv_in"].skipped  # embeds patches
    for name, kind in (("time_emb_proj", "token"), ("conv1", "sample")):
        line = lines[f"mid_block.resnets.0.{name}"]
        assert line.activation.granularity.kind == kind and line.activation.schedule.kind == "dynamic"
        assert line.activation.grid.mode == line.weight.grid.mode == "asymmetric"
        assert line.weight.granularity.kind == "channel"


def test_moments_of_old_columns_are_dropped_and_the_gap_closes(tiny, recorded, monkeypatch) -> None:
    from quant.training.optimize import Optimizer

    dropped: list[int] = []
    forget = Optimizer.forget

    def look(self: Optimizer, names: set[str]) -> None:
        dropped.append(len(names))
        forget(self, names)

    monkeypatch.setattr(Optimizer, "forget", look)
    some: dict[str, Any] = {"trajectories": recorded("unet"), "include": ["mid_block.resnets.*"]}
    quant.quantize_(tiny.build("unet"), CONFIG, **some)
    assert len(dropped) == 3 and all(count > 0 for count in dropped)


def test_a_kept_helper_is_a_branch_of_the_exported_model(tiny, recorded, monkeypatch) -> None:
    from quant.training.student import Student

    config = CONFIG.model_copy(
        update={"helper": "kept", "group": 16, "policy": "common", "path": 0.5, "unshrunk": True}
    )
    seen: dict[str, torch.Tensor] = {}
    outcome = Student.outcome

    def keep(student: Student, *given: Any, **about: Any) -> Any:
        batch = student.source.spread(2)[0]
        with torch.no_grad(), student.installed():
            seen["student"] = student.predict(batch)
        seen["batch"] = batch
        return outcome(student, *given, **about)

    monkeypatch.setattr(Student, "outcome", keep)
    model = tiny.build("pixart")
    store = recorded("pixart")
    planned = quant.plan(model, config)
    ledger = quant.quantize_(model, config, trajectories=store)
    branched = [layer for layer in quant_layers(model).values() if layer.branch is not None]
    assert branched and all(layer.branch.down.dtype == torch.bfloat16 for layer in branched)
    wanted = [layer.bytes_after for layer in planned.layers]
    assert [layer.bytes_after for layer in ledger.layers] == wanted
    from quant.training.source import Source

    torch.testing.assert_close(
        Source(store, 2, hold=False).predict(model, seen["batch"]).float(), seen["student"], rtol=0, atol=1e-5
    )


def test_a_kept_helper_starts_at_the_main_directions_of_the_weight() -> None:
    from quant.methods.qvgen.kept import Kept, kept_rank

    weight = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    side = Kept(weight, by_channel(4), "linear_weight", 64)
    assert side.up.shape[1] == kept_rank(64, 24, 40) == 6
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(side.beside(x) + x @ side.master.T, x @ weight.T, rtol=0, atol=1e-4)
    assert torch.equal(side.beside(x), side.branch()(x))
