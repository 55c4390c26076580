"""Files on disk: sizes, damage, other architectures, exactness under dtype moves and for every part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import quant
from quant.formats.quantizer import int_quantizer
from quant.formats.schedule import Schedule
from quant.layers.attachments import LowRank, Smooth
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.install import install_, quant_layers


@pytest.fixture
def written(tiny, tmp_path):
    model = tiny.build("unet")
    quant.quantize_(model, "rtn-w4a8")
    return quant.export(model, tmp_path / "model.safetensors")


def test_header_tells_all_without_tensors(written) -> None:
    header = quant.read_header(written)
    ledger = header.read_ledger(written)
    assert ledger.recipe == "rtn-w4a8" and ledger.seed == 0 and ledger.versions["torch"] == torch.__version__
    assert ledger.seconds_taken == 0.0


def test_truncated_file(written, tiny) -> None:
    data = written.read_bytes()
    for keep in (4, 500, len(data) // 2, len(data) - 1):
        written.write_bytes(data[:keep])
        model = tiny.build("unet")
        with pytest.raises(quant.InputError, match="truncated or not a safetensors file") as caught:
            quant.load(written, model)
        assert "\n" not in str(caught.value) and not quant_layers(model)


def test_tampered_tensor(written, tiny) -> None:
    data = bytearray(written.read_bytes())
    data[-40] ^= 1
    written.write_bytes(data)
    with pytest.raises(quant.InputError, match="do not match the digest"):
        quant.load(written, tiny.build("unet"))


def test_other_architecture(written, tiny) -> None:
    for other in ("pixart", "odd"):
        model = tiny.build(other)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(quant.InputError, match="is for another architecture"):
            quant.load(written, model)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model = tiny.build("unet")
    model.mid_block.resnets[0].conv1 = nn.Conv2d(64, 64, 1)
    with pytest.raises(quant.InputError, match=r"conv1' is Conv2d \(64, 64, 3, 3\) in the file"):
        quant.load(written, model)
    model = tiny.build("unet")
    model.extra = nn.Linear(3, 3)
    with pytest.raises(quant.InputError, match="it has no layer 'extra'"):
        quant.load(written, model)


def test_missing_file_and_bad_targets(tiny, tmp_path) -> None:
    model = tiny.build("odd")
    with pytest.raises(quant.InputError, match="not quantized"):
        quant.export(model, tmp_path / "a.safetensors")
    with pytest.raises(quant.MissingDataError, match="no checkpoint at"):
        quant.load(tmp_path / "none.safetensors", model)
    quant.quantize_(model, "rtn-w8a8")
    with pytest.raises(quant.InputError, match="must end in"):
        quant.export(model, tmp_path / "a.bin")
    with pytest.raises(quant.InputError, match="does not exist: make it"):
        quant.export(model, tmp_path / "no" / "a.safetensors")


def test_failed_write_leaves_nothing(tiny, tmp_path, monkeypatch) -> None:
    model = tiny.build("odd")
    quant.quantize_(model, "rtn-w8a8")
    target = quant.export(model, tmp_path / "a.safetensors")
    before = target.read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("quant.checkpoint.writing.save_file", full)
    with pytest.raises(OSError, match="no space"):
        quant.export(model, target)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"] and target.read_bytes() == before


def test_file_size_equals_the_ledger(tiny, tmp_path) -> None:
    model = nn.Sequential(nn.Linear(512, 2048), nn.Linear(2048, 512))
    ledger = quant.quantize_(model, "rtn-w4a8")
    file = quant.export(model, tmp_path / "m.safetensors")
    assert abs(file.stat().st_size - ledger.bytes_after) < 0.01 * ledger.bytes_after
    assert ledger.bytes_file == file.stat().st_size
    weights = 2 * 512 * 2048
    assert ledger.by_category()["codes"] == weights // 2
    assert ledger.by_category()["scales"] == weights // 64 * 2
    assert ledger.mean_weight_bits == 4.25
    assert sum(ledger.by_category().values()) == ledger.bytes_after


def test_half_precision_moves_do_not_touch_scales(tiny) -> None:
    model = tiny.build("odd")
    quant.quantize_(model, "rtn-w8a8")
    scale = model.linear.weight_scale.clone()
    model.half().float()
    assert torch.equal(model.linear.weight_scale, scale)
    quant.restore_(model.to(torch.bfloat16))
    assert model.linear.weight.dtype == torch.bfloat16


def test_a_ledger_counts_what_is_stored_after_a_cast(tiny, tmp_path) -> None:
    """It went on saying the bytes of float32: a tenth more than the file of a small U-Net has."""
    model = tiny.build("odd")
    ledger = quant.quantize_(model, "rtn-w4a8", exclude=["pointwise"])
    was, biases, weight = ledger.bytes_before, 4 * (24 + 70 + 33 + 131), 4 * 70 * 33
    assert ledger.bytes_other == biases
    quant.export(model.half(), tmp_path / "m.safetensors")
    file = quant.export(model, tmp_path / "m.safetensors")  # twice, as it may come
    for found in (ledger, quant.load(file, tiny.build("odd"))):
        line = next(line for line in found.layers if line.name == "pointwise")
        assert (found.bytes_other, line.bytes_after, line.bits) == (biases // 2, weight // 2, "W16A16")
        assert found.bytes_file == file.stat().st_size and found.bytes_before == was
    quant.export(model.float(), file)
    assert ledger.bytes_other == biases and ledger.bytes_before == was
    assert "bytes_other_before" not in ledger.to_dict()


def test_a_tied_head_is_counted_once_after_a_cast(tmp_path) -> None:
    """Its weight's first name is the embedding's; the head kept its old bytes, and the rest went below 0."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb, self.body, self.head = nn.Embedding(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)
            self.head.weight = self.emb.weight

        def forward(self, x):
            return self.head(self.body(self.emb(x)))

    model = Tied()
    ledger = quant.quantize_(model, "rtn-w4a8", exclude=["head"])
    file = quant.export(model.half(), tmp_path / "m.safetensors")
    head = next(line for line in ledger.layers if line.name == "head")
    biases = 2 * (64 + 64)
    assert (ledger.bytes_other, head.bytes_after, head.bits) == (biases, 2 * 64 * 64, "W16A16")
    assert ledger.bytes_file == file.stat().st_size


def test_transform_branch_and_tables_travel(tmp_path) -> None:
    """What later methods hang on a layer: smoothing, low rank, per-timestep scales."""
    torch.manual_seed(0)

    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(48, 20)

        def forward(self, x, timestep):
            return self.layer(x)

    model = Timed()
    w = model.layer.weight.detach()
    smooth = Smooth(torch.rand(48) + 0.5)
    left, values, right = torch.linalg.svd(smooth.to_weight(w))
    up, down = (
        left[:, :4] * values[:4],
        right[:4] / smooth.factor,
    )  # on the untouched input: factor divided out
    residual = smooth.to_weight(w - up @ down)
    activation = int_quantizer(8, "tensor", schedule=Schedule(kind="timestep"))
    timesteps = torch.tensor([100.0, 900.0])
    result = LayerResult(
        weight=EncodedWeight.from_weight(residual, int_quantizer(8, "channel"), "linear_weight"),
        activation=activation,
        activation_params={"scale": torch.tensor([0.05, 0.01]).reshape(2, 1, 1)},
        timesteps=timesteps,
        transform=smooth,
        branch=LowRank(down, up),
    )
    x = torch.randn(2, 48)
    plan = quant.plan(model, "rtn-w8a8")
    state = install_(model, {"layer": result})
    from quant.api import _record

    record = _record(plan.layers[0], result, model.layer.original)
    assert record.weight_sqnr_db > 40 and record.bytes_by["branch"] == 4 * (48 * 4 + 20 * 4)
    assert record.bytes_by["activation"] == 8 + 8 and record.bytes_by["transform"] == 4 * 48
    state.ledger = quant.Ledger(**{**plan.model_dump(exclude={"layers"}), "layers": [record]})
    early, late = model(x, torch.tensor(100.0)), model(x, timestep=torch.tensor(900.0))
    assert not torch.equal(early, late)
    mixed = model(x, torch.tensor([100.0, 900.0]))
    torch.testing.assert_close(mixed, torch.stack([early[0], late[1]]))
    with pytest.raises(quant.InputError, match="timestep 500 is not in the calibrated table"):
        model(x, torch.tensor(500.0))
    file = quant.export(model, tmp_path / "m.safetensors")
    with torch.device("meta"):
        bare = Timed()
    quant.load(file, bare)
    assert torch.equal(bare(x, torch.tensor(100.0)), early) and torch.equal(bare(x, 900.0), late)
    quant.restore_(model)
    assert not model._forward_pre_hooks and type(model.layer) is nn.Linear


def test_a_model_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(quant.InputError, match=r"the file comes first.*quant\.load\(path, model\)"):
        quant.load(torch.nn.Linear(2, 2), str(tmp_path))  # type: ignore[arg-type]
