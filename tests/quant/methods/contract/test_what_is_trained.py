"""Which parameters each method moves, and that it moves nothing else."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch

import quant
from quant.registry import get_method
from quant.training import student as students

BASE = {"train_steps": 3, "train_rows": 3, "calibration_rows": 3, "held_out_rows": 0}
TIME = "adaln_single.emb.timestep_embedder.linear_2"
BODY = "transformer_blocks.1.attn2.to_q"
SOME = [TIME, BODY, "transformer_blocks.0.ff.net.2", "proj_out"]

FACTORS = {"side.up", "side.down", "side.scale", "inputs.scale", "inputs.zero"}
INTEGERS = {"side.master", "side.scale", "own.bias"}
WHOLE = {"side.master", "side.scale", "side.zero", "own.bias"}
STAGES: list[tuple[str, dict[str, Any], list[tuple[dict[str, set[str]], set[str]]]]] = [
    ("efficientdm", {}, [({TIME: set(), "proj_out": set()}, FACTORS)]),
    ("efficientdm", {"rank": 0}, [({TIME: set(), "proj_out": set()},
                                  {"side.master", "side.scale", "inputs.scale", "inputs.zero"})]),
    # the largest share of the error is one layer's: the input ranges of all that are not time's
    ("quest", {"probe_rows": 1, "sensitive": 0.01, "rate_input": 0.01},
     [({TIME: {"side.master", "inputs.scale", "inputs.zero"}}, set()),
      ({TIME: set()}, {"side.master", "inputs.scale", "inputs.zero"})]),
    ("binarydm", {"outer": 0.0, "kept_bits": 6, "warm_up": 0},
     [({TIME: INTEGERS, "proj_out": INTEGERS}, {"side.master", "side.bases", "own.bias", "inputs.scale"})]),
    ("qvgen", {"rank": 2}, [({}, WHOLE | {"side.up", "side.down"})]),
    ("qvgen", {"helper": "none"}, [({}, WHOLE)]),
    ("qvgen", {"helper": "kept"}, [({}, WHOLE | {"side.up", "side.down"})]),
]  # fmt: skip
"""Method, settings, and by stage what is moved in some layers, and in those that are not named."""


@pytest.mark.parametrize(("name", "changes", "stages"), STAGES)
def test_what_moves(
    name: str, changes: dict[str, Any], stages: list[Any], tiny, recorded, monkeypatch
) -> None:
    moved: list[dict[str, set[str]]] = []
    train = students.Student.train

    def watched(self: students.Student, *given: Any, **options: Any) -> Any:
        before = {n: {k: p.detach().clone() for k, p in f.named_parameters()} for n, f in self.layers.items()}
        result = train(self, *given, **options)
        found: dict[str, set[str]] = defaultdict(set)
        for layer, parameters in before.items():
            for key, old in parameters.items():
                if not torch.equal(self.layers[layer].get_parameter(key), old):
                    found[layer].add(".".join(key.split(".")[:2]))
        moved.append(found)
        return result

    monkeypatch.setattr(students.Student, "train", watched)
    config = get_method(name).config(**{**BASE, **changes})
    model = tiny.build("pixart")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    quant.quantize_(model, config, trajectories=recorded("pixart"), include=SOME)
    quant.restore_(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert len(moved) == len(stages)
    for found, (named, rest) in zip(moved, stages, strict=True):
        for layer, wanted in named.items():
            assert found.get(layer, set()) == wanted, layer
        others = [found.get(layer, set()) for layer in SOME if layer not in named]
        assert all(one <= rest for one in others) and set().union(*others) == rest


class Stop(Exception):
    pass


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_seed_and_factor_of_the_loss_reach_the_loop(kind: torch.dtype, tiny, recorded, monkeypatch) -> None:
    seen: list[Any] = []

    def look(task: Any, context: Any) -> None:
        seen.append(task)
        raise Stop

    monkeypatch.setattr(students, "distill", look)
    config = get_method("qvgen").config(**BASE)
    with pytest.raises(Stop):
        quant.quantize_(
            tiny.build("pixart").to(kind), config, trajectories=recorded("pixart"), include=[BODY], seed=7
        )
    assert seen[0].generator.initial_seed() == 7
    assert seen[0].factor == (2**16 if kind == torch.float16 else 1)
