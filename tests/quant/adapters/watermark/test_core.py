from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quant.adapters.watermark import core
from quant.adapters.watermark.config import WatermarkConfig
from quant.adapters.watermark.core import Decoder
from quant.adapters.watermark.course import Course
from quant.adapters.watermark.extractor import Extractor
from quant.adapters.watermark.losses import similarity
from quant.registry import Context


def test_training_learns_and_leaves_the_decoder_alone(decoder: Decoder, config: WatermarkConfig) -> None:
    before = {k: v.clone() for k, v in decoder.model.state_dict().items()}
    reader, cost = core.train_extractor(decoder, config, Context(seed=1))
    losses = [row["loss"] for row in cost.trace]
    assert losses[-1] < 0.9 * losses[0]
    message = core.random_message(8, 3)
    factors, balance, cost = core.train_key(decoder, reader, message, config, Context(seed=2))
    plain = decoder.pictures()
    with factors.attached(decoder.model):
        marked = decoder.pictures()
    wanted = core.signs(message)
    unmarked, found = (((reader(x) * wanted) > 0).float().mean() for x in (plain, marked))
    assert found > 0.9 and 0.3 < unmarked < 0.7
    assert balance.picture > 1 and balance.message > 0
    assert all(torch.equal(v, before[k]) for k, v in decoder.model.state_dict().items())


def test_each_step_of_a_key_weighs_message_and_picture_as_published(
    decoder: Decoder, reader: Extractor, config: WatermarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lambda_i L_i + lambda_w BCE, divided by their sum; the weights by DLWS's rule, worked out here."""
    made: list[tuple[Tensor, Tensor]] = []
    losses: list[float] = []
    decode, update = decoder.decode, Course.update

    def decoding(inputs: Tensor) -> Tensor:
        made.append((inputs, out := decode(inputs)))
        return out

    def updating(self: Course, loss: Tensor) -> None:
        losses.append(float(loss.detach()))
        update(self, loss)

    monkeypatch.setattr(decoder, "decode", decoding)
    monkeypatch.setattr(Course, "update", updating)
    changes = {"distorted": 0.0, "key_steps": 4, "key_rate": 0.05, "match_target": 0.6}
    given = config.model_copy(update=changes)
    core.train_key(decoder, reader, "10110010", given, Context(seed=2))
    signs = torch.tensor([1.0, -1, 1, 1, -1, -1, 1, -1])
    picture, message = 1.0, 0.0
    with torch.no_grad():
        for loss, (inputs, marked) in zip(losses, made, strict=True):
            plain = decode(inputs)
            kept, before = ((x.clamp(0, 1) * 255).round() / 255 for x in (marked, plain))
            right = reader(kept) * signs
            noise = (kept - before).square().mean((1, 2, 3)).clamp_min(1e-10)
            if (right > 0).float().mean() < 0.6:
                message += 0.6
            elif (-10 * noise.log10()).mean() < 30:
                picture += 0.3
            cost = (marked - plain).square().mean() / 1e-3 + 0.1 * (1 - similarity(marked, plain))
            reading = torch.log(1 + torch.exp(-2 * right)).mean()
            wanted = (picture * cost + message * reading) / (picture + message)
            assert loss == pytest.approx(float(wanted), rel=1e-3, abs=1e-6)
    assert torch.equal(made[0][1], decode(made[0][0]))  # B = 0 at first
    assert message > 0 and not torch.equal(made[1][1], decode(made[1][0]))


def test_a_key_is_steered_by_pictures_that_are_not_distorted(
    decoder: Decoder, reader: Extractor, config: WatermarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [core._distorted(share, 8) for share in (0.0, 0.6, 1.0)] == [0, 4, 7]
    reader.whiten(decoder.pictures())  # a distorted picture reads otherwise
    seen: list[tuple[float, float]] = []
    made: list[tuple[Tensor, Tensor]] = []
    decode = decoder.decode

    def decoding(inputs: Tensor) -> Tensor:
        made.append((inputs, out := decode(inputs)))
        return out

    monkeypatch.setattr(decoder, "decode", decoding)
    monkeypatch.setattr(core.Balance, "update", lambda self, psnr, match: seen.append((psnr, match)))
    monkeypatch.setattr(core, "distort", lambda x: [torch.zeros_like(part) for part in x.chunk(4)])
    given = config.model_copy(update={"distorted": 1.0, "key_steps": 4, "key_rate": 0.1})
    core.train_key(decoder, reader, "10110010", given, Context(seed=2))
    signs = torch.tensor([1.0, -1, 1, 1, -1, -1, 1, -1])
    for step, ((level, match), (inputs, marked)) in enumerate(zip(seen, made, strict=True)):
        kept, before = ((x.detach().clamp(0, 1) * 255).round() / 255 for x in (marked, decode(inputs)))
        clean = kept[core._distorted(min(1.0, step / 2), 8) :]
        assert match == pytest.approx(float((reader(clean) * signs > 0).float().mean()))
        noise = (kept - before).square().mean((1, 2, 3)).clamp_min(1e-10)
        assert level == pytest.approx(float(-10 * noise.log10().mean()), rel=1e-5)
    assert len(seen) == 4 and 0 < seen[-1][0] < 90
