from __future__ import annotations

import torch

from quant.adapters.watermark import core
from quant.adapters.watermark.config import WatermarkConfig
from quant.adapters.watermark.core import Decoder
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
