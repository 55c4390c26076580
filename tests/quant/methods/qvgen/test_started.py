"""A start from SVDQuant: equal to it before a step is taken, plain codes and parts after."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import quant
from quant import recipes
from quant.formats.granularity import Granularity
from quant.formats.quantizer import Quantizer
from quant.layers.encoded import EncodedWeight
from quant.layers.install import quant_layers
from quant.methods.qvgen import started
from quant.methods.qvgen.started import in_cells
from quant.methods.svdquant.core import core as svdquant
from quant.methods.svdquant.formats import FOUR

BASE = "train_rows=2+calibration_rows=4+held_out_rows=4+look_every=3"
START = f"qvgen-w4a4+helper=kept+start=svdquant+policy=common+group=16+rank=4+{BASE}"
BLOCK = ["transformer_blocks.1.*"]
SOLVED: dict[str, Any] = {}
"""What SVDQuant gave: these tests begin from the same few starts."""


def made(tiny, store, recipe: str):
    model = tiny.build("pixart")
    return model, quant.quantize_(model, recipe, trajectories=store, seed=0, solved=SOLVED, include=BLOCK)


def test_before_a_step_it_is_svdquant(tiny, recorded) -> None:
    store = recorded("pixart")
    wanted, svdquant = made(tiny, store, "svdquant-gptq-w4a4-common+group=16+rank=4")
    found, ledger = made(tiny, store, f"{START}+train_steps=0")
    assert [line.bytes_after for line in ledger.layers] == [line.bytes_after for line in svdquant.layers]
    for name, layer in quant_layers(wanted).items():
        assert torch.equal(quant_layers(found)[name].encoded().codes(), layer.encoded().codes())
    assert torch.equal(tiny.run(found, "pixart"), tiny.run(wanted, "pixart"))


@pytest.mark.parametrize("bits", [2, 4])
def test_masters_near_the_weights_have_the_same_codes(bits: int, tiny, recorded) -> None:
    store = recorded("pixart")
    wanted, _ = made(tiny, store, f"{START}+weight_bits={bits}+train_steps=0")
    found, ledger = made(tiny, store, f"{START}+weight_bits={bits}+train_steps=0+masters=weights")
    assert {line.weight.bits for line in ledger.layers if line.activation} == {bits}
    for name, layer in quant_layers(wanted).items():
        assert torch.equal(quant_layers(found)[name].encoded().codes(), layer.encoded().codes())


def test_a_weight_goes_as_far_as_its_code_allows() -> None:
    grid = Quantizer(grid=FOUR, granularity=Granularity(kind="channel"))
    codes = torch.tensor([[0, 1, 2, 3, 2]], dtype=torch.uint8)
    start = EncodedWeight.from_codes(codes, grid, "linear_weight", {"scale": torch.ones(1, 1)})
    values = start.decode()
    found = in_cells(torch.tensor([[-1.1, -0.9, 0.5, 9.0, -3.0]]), start)
    assert torch.equal(grid.encode(found, "linear_weight", start.params)[0], codes)
    assert torch.allclose(found[0, :3], torch.tensor([-1.1, -0.9, 0.5]))  # its own cell: all the way
    assert 0.97 < found[0, 3] / values[0, 3] < 1  # beyond the outermost level: there is no gradient
    assert 0 < found[0, 4] < values[0, 4]  # error feedback chose another code: only towards the weight


@pytest.mark.parametrize(
    ("how", "codes"),
    [("unroll=2", True), ("unroll=2+tuned=branch", False), ("unroll=2+weight_bits=2", True)],
)
def test_training_along_the_way_moves_what_is_tuned(
    how: str, codes: bool, tiny, recorded, monkeypatch
) -> None:
    store = recorded("pixart")
    bits = "+weight_bits=2" if "weight_bits" in how else ""
    start, _ = made(tiny, store, f"{START}+train_steps=0{bits}")
    monkeypatch.setattr("quant.training.loop._Run.keep_best", lambda self: None)  # the last, not the best
    model, ledger = made(tiny, store, f"{START}+train_steps=6+rate_weight=0.02+{how}")
    assert ledger.notes["qat"]["steps"] == 6
    moved = changed = False
    for name, layer in quant_layers(model).items():
        before = quant_layers(start)[name]
        moved |= not torch.equal(layer.encoded().codes(), before.encoded().codes())
        if layer.branch is not None:
            changed |= not torch.equal(layer.branch.up, before.branch.up)
            assert layer.branch.up.dtype == torch.bfloat16
    assert changed and moved == codes


def test_settings_that_do_not_go_together_are_refused() -> None:
    for words, said in (
        ("start=svdquant", "belongs to helper 'kept'"),
        ("helper=kept+start=svdquant+activation_bits=8", "got 4 and 8"),
        ("tuned=branch", "belongs to start 'svdquant'"),
        ("masters=weights", "belongs to start 'svdquant'"),
        ("rank=48", "can't be halved"),
    ):
        with pytest.raises(quant.InputError, match=said):
            recipes.resolve(f"qvgen-w4a4+{words}")


def test_a_rank_above_the_layers_is_said(tiny) -> None:
    for recipe, said in (
        ("qvgen-w4a4", "rank 16 of 32: the layer has no more"),
        ("qvgen-w4a4+helper=kept", "of 32: at most a quarter of the layer's"),
        ("efficientdm-w4a4+rank=1000", "of 1000: the layer has no more"),
    ):
        reasons = [line.reason or "" for line in quant.plan(tiny.build("unet"), recipe).layers]
        assert any(said in reason for reason in reasons), (recipe, set(reasons))
    reasons = [line.reason or "" for line in quant.plan(tiny.build("unet"), "qvgen-w4a4+helper=none").layers]
    assert not any("rank" in reason for reason in reasons)


def test_a_start_that_two_recipes_share_is_solved_once(tiny, recorded, tmp_path, monkeypatch) -> None:
    store, calls = recorded("pixart"), []
    monkeypatch.setattr(started, "core", lambda *given: calls.append(1) or svdquant(*given))

    def run(file: str, recipe: str, **given) -> bytes:
        model = tiny.build("pixart")
        quant.quantize_(model, f"{START}+{recipe}", trajectories=store, include=BLOCK, **given)
        return quant.export(model, tmp_path / f"{file}.safetensors").read_bytes()

    solved: dict = {}
    first = run("start", "train_steps=0", solved=solved)
    assert run("tuned", "train_steps=3+rate_weight=0.02", solved=solved) != first
    assert len(calls) == len(solved) == 1
    # what was trained from it, and what was moved elsewhere, is not in it
    assert run("again", "train_steps=0", solved=solved) == first == run("alone", "train_steps=0")
    assert run("tuned", "train_steps=3+rate_weight=0.02") == (tmp_path / "tuned.safetensors").read_bytes()
    run("other seed", "train_steps=0", solved=solved, seed=1)
    assert len(solved) == 2
    run("other bits", "train_steps=0+weight_bits=3", solved=solved)
    assert len(solved) == 3
