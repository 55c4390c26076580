"""Stored indices that point nowhere: a signed file whose formats or labels cannot be."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import quant
from quant.formats.clusters import CHANNEL, PADDING, POSITION, fault
from quant.methods.dgq import DgqConfig
from quant.methods.lowbit_fp import LowbitFpConfig

LAYER = "mid_block.resnets.0.conv1"
PADDED = torch.tensor([[0, 1, 1, 0], [1, 0, PADDING, PADDING]], dtype=torch.uint8)


def tables(**change: Any) -> dict[str, torch.Tensor]:
    """Two rows, along 4 channels and 2 positions, in 2 clusters."""
    axis = torch.tensor([CHANNEL, POSITION], dtype=torch.uint8)
    return {
        "axis": axis,
        "labels": PADDED,
        "scale": torch.ones(2, 2),
        "zero_point": torch.zeros(2, 2),
        **change,
    }


def test_tables_that_calibration_makes_have_no_fault() -> None:
    assert fault(tables(), channels=4) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"axis": torch.tensor([0, 2], dtype=torch.uint8)}, r"axis \[0, 2\]"),
        ({"axis": torch.tensor([0.0, 1.0])}, "axis and labels of torch.float32"),
        ({"axis": torch.zeros(2, dtype=torch.uint8)}, "labels of 2 channels, the layer has 4"),
        ({"labels": PADDED.clone().index_fill_(1, torch.tensor(1), 2)}, "labels up to 2 for 2 clusters"),
        ({"labels": torch.full((2, 4), PADDING)}, "axis and labels of torch.uint8 and torch.int64"),
        ({"labels": PADDED.flip(1)}, "labels with gaps"),
        ({"labels": PADDED[:, :3]}, "labels of 3 channels, the layer has 4"),
        ({"scale": torch.ones(2)}, r"tables of shapes .* scale \(2,\)"),
        ({"zero_point": torch.zeros(2, 3)}, r"tables of shapes .* zero_point \(2, 3\)"),
    ],
)
def test_tables_that_cannot_be(change: dict[str, torch.Tensor], says: str) -> None:
    assert re.match(says, fault(tables(**change), channels=4) or "no fault")


@pytest.mark.parametrize(
    ("config", "key", "value", "says"),
    [
        (
            LowbitFpConfig(samples=2, rows=32),
            "input_quantizer.format",
            9,
            "its input has format 9, but it chooses",
        ),
        (
            LowbitFpConfig(samples=2, rows=32),
            "weight_format",
            4,
            "its weight has format 4, but it chooses among 4",
        ),
        (
            DgqConfig(samples=2, groups=3),
            "input_quantizer.labels",
            3,
            "its input has labels up to 3 for 3 clusters",
        ),
    ],
    ids=["input format", "weight format", "labels"],
)
def test_a_signed_file_with_such_values_is_refused(
    config: Any, key: str, value: int, says: str, tiny, recorded, tmp_path
) -> None:
    model = tiny.build("level")
    quant.quantize_(model, config, trajectories=recorded("level"), include=["mid_block.resnets.*"])
    dict(model.named_buffers())[f"{LAYER}.{key}"].fill_(value)
    file = quant.export(model, tmp_path / "m.safetensors")
    bare = tiny.build("level", seed=9)
    before = tiny.run(bare, "level")
    with pytest.raises(quant.InputError, match=f"'{LAYER}': {says}.*export the model again"):
        quant.load(file, bare)
    assert torch.equal(tiny.run(bare, "level"), before)
