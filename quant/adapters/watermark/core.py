"""Training: first an extractor on factors that carry any message, then the factors of one message against it.

1. The extractor learns together with low-rank factors in the same convolutions that keys will use, with a
   mapper from message to factors between them. So it learns to read what such factors can write. The mark's
   strength is fixed for every picture (scaled to a signal to noise), and falls as reading allows.
2. Batch norms are folded, outputs whitened on unmarked pictures, the extractor frozen.
3. A key is trained from B = 0: cross-entropy of its message and the picture's loss, with dynamic weights.

The decoder's weights never change.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.adapters.watermark.balance import Balance
from quant.adapters.watermark.config import WatermarkConfig
from quant.adapters.watermark.distortions import distort, stored
from quant.adapters.watermark.extractor import Extractor
from quant.adapters.watermark.losses import picture_loss, psnr
from quant.adapters.watermark.lowrank import LowRank, chosen_layers
from quant.errors import InputError
from quant.registry import Context

GOOD, FAIR = 0.88, 0.7
"""Shares of right bits, clean and distorted, from which the extractor's task becomes harder."""
FREEZE = 0.6
"""Share of training after which batch norms keep their statistics."""
LOOK = 25
"""Steps between two reports."""


@dataclass
class Decoder:
    """The decoder to be marked, as training needs it.

    Attributes
    ----------
    model : torch.nn.Module
        Holds the convolutions by name.
    decode : callable
        From inputs (n, ...) to pictures (n, 3, h, w) in about 0..1, with gradients through the factors.
    inputs : tensor of shape (n, ...)
        What `decode` takes, of the training pictures; on the device.
    """

    model: nn.Module
    decode: Callable[[Tensor], Tensor]
    inputs: Tensor
    photographs: Tensor | None = None
    """uint8 tensor of shape (m, 3, h, w): pictures that no decoder made, for the null."""

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.plain = torch.cat([self.decode(x) for x in self.inputs.split(256)])

    @torch.no_grad()
    def pictures(self, index: Tensor | None = None, batch: int = 256) -> Tensor:
        """Return the decoder's pictures, as stored with 8 bits."""
        chosen = self.inputs if index is None else self.inputs[index]
        return torch.cat([stored(self.decode(x)) for x in chosen.split(batch)])


@dataclass
class Trained:
    """What a training came to."""

    steps: int
    seconds: float
    trace: list[dict[str, float]] = field(default_factory=list)


def random_message(bits: int, seed: int) -> str:
    """Draw a message of fair bits."""
    drawn = torch.randint(2, (bits,), generator=torch.Generator().manual_seed(seed))
    return "".join(map(str, drawn.tolist()))


def signs(message: str, device: Any = "cpu") -> Tensor:
    """Return a message as +-1: float tensor of shape (bits,)."""
    return torch.tensor([1.0 if bit == "1" else -1.0 for bit in message], device=device)


def _rate(peak: float, share: float, step: int, warmup: int = 100) -> float:
    return peak * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * share)))


def _finite(loss: Tensor, step: int) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise InputError(f"the loss became {value} at step {step}: train with a lower rate")
    return value


@torch.no_grad()
def _take(parameters: list[Tensor], average: list[Tensor], done: int) -> None:
    """Put averages in place; refuse what is no number, which the last steps may have made unseen."""
    for p, a in zip(parameters, average, strict=True):
        if not bool(torch.isfinite(a).all()):
            raise InputError(f"the weights are not finite after {done} steps: train with a lower rate")
        p.copy_(a)


def train_extractor(
    decoder: Decoder, config: WatermarkConfig, context: Context, minutes: float | None = None
) -> tuple[Extractor, Trained]:
    """Train the extractor with factors that carry any message; ends folded and whitened.

    Parameters
    ----------
    minutes : float, optional
        Time budget; the learning rate then falls with the share of time used.
    """
    torch.manual_seed(context.seed)
    device, began = decoder.inputs.device, time.perf_counter()
    layers = chosen_layers(decoder.model, config.layers, 1)
    writer = LowRank(layers, config.mapper_rank, config.mapper_rank, config.bits).to(device)
    reader = Extractor(config.bits).to(device, memory_format=torch.channels_last)
    parameters = [*writer.parameters(), *reader.parameters()]
    optimiser = torch.optim.AdamW(
        parameters,
        lr=config.extractor_rate,
        betas=(0.9, 0.99),
        weight_decay=0.01,
        fused=device.type == "cuda",
    )
    average = [p.detach().clone() for p in parameters]
    level, clean, rough, done, trace = 0.0, 0.5, 0.5, 0, []
    span = config.last_psnr - config.first_psnr
    for step in range(config.extractor_steps):
        used = (time.perf_counter() - began) / (60 * minutes) if minutes else 0.0
        share = max(step / config.extractor_steps, used)
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = _rate(config.extractor_rate, share, step)
        if share > FREEZE:
            _frozen(reader)
        pick = torch.randint(len(decoder.inputs), (config.extractor_batch,), device=device)
        inputs, plain = decoder.inputs[pick], decoder.plain[pick]
        message = torch.randint(2, (len(inputs), config.bits), device=device) * 2.0 - 1
        writer.message = message
        with writer.attached(decoder.model):  # not in bfloat16, whose rounding is as large as the mark
            marked = decoder.decode(inputs)
        marked = _at_strength(marked, plain, config.first_psnr + span * level)
        hard = int(level * config.distorted * len(inputs))
        groups = [stored(marked[hard:])]
        groups += distort(marked[:hard]) if hard else []
        wanted = [message[hard:], *(message[:hard].chunk(4) if hard else [])]
        loss, hits = torch.zeros((), device=device), []
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            for found, bits in zip(_outputs(reader, groups), wanted, strict=True):
                loss = loss + F.softplus(-found * bits).mean() * (len(bits) / len(inputs))
                hits.append((found.detach() * bits > 0).float().mean())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        torch._foreach_lerp_(
            average, [p.detach() for p in parameters], 1 - min(0.998, (step + 1) / (step + 10))
        )
        seen = torch.stack(hits).tolist()
        clean += 0.05 * (seen[0] - clean)
        rough += 0.05 * (sum(seen[1:]) / len(seen[1:]) - rough) if hard else 0.0
        if clean > GOOD and (rough > FAIR or not hard):
            level = min(1.0, level + 1e-3)
        if step % LOOK == 0:
            row = {"loss": _finite(loss, step), "clean": clean, "rough": rough, "level": level}
            trace.append({"step": step, **row})
            context.progress(step, config.extractor_steps, _words("extractor", row))
        done = step + 1
    _take(parameters, average, done)
    _settle(reader, decoder)
    return reader, Trained(done, time.perf_counter() - began, trace)


def _words(what: str, row: dict[str, float]) -> str:
    return what + " " + ", ".join(f"{key} {value:.3g}" for key, value in row.items())


def _at_strength(marked: Tensor, plain: Tensor, psnr_db: float) -> Tensor:
    """Scale each picture's mark to a signal to noise; the direction alone is learned."""
    mark = marked - plain
    power = mark.square().mean((1, 2, 3), keepdim=True)
    return plain + mark * (10 ** (-psnr_db / 20) * (power + 1e-12).rsqrt())


def _frozen(reader: Extractor) -> None:
    """Let batch norms use their running statistics: a picture must read the same in any batch."""
    for block in reader.body:
        block.norm.eval()


@torch.no_grad()
def _settle(reader: Extractor, decoder: Decoder) -> None:
    """Fold batch norms away and whiten the outputs on unmarked pictures: decoded ones and photographs."""
    reader.eval()
    reader.fold()
    reader.requires_grad_(False)
    pick = torch.linspace(0, len(decoder.inputs) - 1, min(8192, len(decoder.inputs))).long()
    pick = pick.to(decoder.inputs.device)
    unmarked = [decoder.pictures(pick)]
    if decoder.photographs is not None:
        pick = pick[pick < len(decoder.photographs)]
        unmarked.append(decoder.photographs[pick].float() / 255)
    reader.whiten(torch.cat(unmarked))


def _outputs(reader: Extractor, groups: list[Tensor]) -> list[Tensor]:
    """Read groups of pictures; those of the first one's size together, since batch norm looks at a batch."""
    same = [g for g in groups if g.shape[1:] == groups[0].shape[1:]]
    found = iter(reader(torch.cat(same)).split([len(g) for g in same]))
    return [next(found) if g.shape[1:] == groups[0].shape[1:] else reader(g) for g in groups]


def train_key(
    decoder: Decoder,
    reader: Extractor,
    message: str,
    config: WatermarkConfig,
    context: Context,
    minutes: float | None = None,
) -> tuple[LowRank, Balance, Trained]:
    """Train the factors of one message against a frozen extractor."""
    torch.manual_seed(context.seed)
    device, began = decoder.inputs.device, time.perf_counter()
    factors = LowRank(chosen_layers(decoder.model, config.layers, config.rank), config.rank, config.alpha).to(
        device
    )
    wanted, balance, trace = signs(message, device), Balance(config), []
    if len(message) != reader.config["bits"]:
        raise InputError(f"message has {len(message)} bits; this extractor reads {reader.config['bits']}")
    parameters = list(factors.parameters())
    optimiser = torch.optim.AdamW(
        parameters, lr=config.key_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=device.type == "cuda"
    )
    average = [p.detach().clone() for p in parameters]
    done = 0
    for step in range(config.key_steps):
        used = (time.perf_counter() - began) / (60 * minutes) if minutes else 0.0
        share = max(step / config.key_steps, used)
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = _rate(config.key_rate, share, step, 50)
        pick = torch.randint(len(decoder.inputs), (config.key_batch,), device=device)
        inputs, plain = decoder.inputs[pick], decoder.plain[pick]
        with factors.attached(decoder.model):
            marked = decoder.decode(inputs)
        hard = int(config.distorted * len(inputs) * min(1.0, 2 * share))
        groups = [stored(marked[hard:]), *(distort(marked[:hard]) if hard else [])]
        outputs = _outputs(reader, groups)
        found = torch.cat(outputs)
        reading = F.softplus(-config.sharpness * found * wanted).mean()
        with torch.no_grad():
            match = float((outputs[0] * wanted > 0).float().mean())
            level = float(psnr(stored(marked), stored(plain)).mean())
        balance.update(level, match)
        cost = picture_loss(marked, plain, config.similarity)
        loss = (balance.picture * cost + balance.message * reading) / (balance.picture + balance.message)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        torch._foreach_lerp_(
            average, [p.detach() for p in parameters], 1 - min(0.99, (step + 1) / (step + 10))
        )
        if step % LOOK == 0:
            row = {
                "loss": _finite(loss, step),
                "match": match,
                "psnr": level,
                "ratio": balance.message / balance.picture,
            }
            trace.append({"step": step, **row})
            context.progress(step, config.key_steps, _words("key", row))
        done = step + 1
    _take(parameters, average, done)
    return factors, balance, Trained(done, time.perf_counter() - began, trace)
