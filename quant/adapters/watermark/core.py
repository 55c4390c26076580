"""Training: first an extractor on factors that carry any message, then the factors of one message against it.

1. The extractor learns together with low-rank factors in the same convolutions that keys will use, with a
   mapper from message to factors between them. So it learns to read what such factors can write. The mark's
   strength is fixed for every picture (scaled to a signal to noise), and falls as reading allows.
2. Batch norms are folded, outputs whitened on unmarked pictures, the extractor frozen.
3. A key is trained from B = 0: cross-entropy of its message and the picture's loss, with dynamic weights.

The decoder's weights never change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.adapters.watermark.balance import Balance
from quant.adapters.watermark.config import WatermarkConfig
from quant.adapters.watermark.course import Course, Pace, Trained
from quant.adapters.watermark.distortions import distort, stored
from quant.adapters.watermark.extractor import Extractor
from quant.adapters.watermark.losses import picture_loss, psnr
from quant.adapters.watermark.lowrank import LowRank, chosen_layers
from quant.errors import InputError
from quant.progress import Progress, silent
from quant.registry import Context

GOOD, FAIR = 0.88, 0.7
"""Shares of right bits, clean and distorted, from which the extractor's task becomes harder."""
FREEZE = 0.6
"""Share of training after which batch norms keep their statistics."""


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
    progress: Progress = silent

    @torch.no_grad()
    def __post_init__(self) -> None:
        plain, batches = [], self.inputs.split(256)
        for index, inputs in enumerate(batches):
            self.progress(index, len(batches), "decoding pictures")
            plain.append(self.decode(inputs))
        self.plain = torch.cat(plain)

    @torch.no_grad()
    def pictures(self, index: Tensor | None = None, batch: int = 256) -> Tensor:
        """Return the decoder's pictures, as stored with 8 bits."""
        chosen = self.inputs if index is None else self.inputs[index]
        return torch.cat([stored(self.decode(x)) for x in chosen.split(batch)])


def random_message(bits: int, seed: int) -> str:
    """Draw a message of fair bits."""
    drawn = torch.randint(2, (bits,), generator=torch.Generator().manual_seed(seed))
    return "".join(map(str, drawn.tolist()))


def signs(message: str, device: Any = "cpu") -> Tensor:
    """Return a message as +-1: float tensor of shape (bits,)."""
    return torch.tensor([1.0 if bit == "1" else -1.0 for bit in message], device=device)


def train_extractor(
    decoder: Decoder, config: WatermarkConfig, context: Context, minutes: float | None = None
) -> tuple[Extractor, Trained]:
    """Train the extractor with factors that carry any message; ends folded and whitened.

    Parameters
    ----------
    minutes : float, optional
        Time budget; the learning rate then falls with the share of time used.

    Raises
    ------
    InputError
        The loss is not finite.
    """
    torch.manual_seed(context.seed)
    device = decoder.inputs.device
    layers = chosen_layers(decoder.model, config.layers, 1)
    writer = LowRank(layers, config.mapper_rank, config.mapper_rank, config.bits).to(device)
    reader = Extractor(config.bits).to(device, memory_format=torch.channels_last)
    pace = Pace(config.extractor_steps, config.extractor_rate, 100, 0.01, 0.998, minutes)
    both = nn.ModuleDict({"writer": writer, "reader": reader})
    course = Course("extractor", both, pace, context, {"level": 0.0, "clean": 0.5, "rough": 0.5})
    span, now = config.last_psnr - config.first_psnr, course.values
    for share in course.shares():
        if share > FREEZE:
            _frozen(reader)
        pick = torch.randint(len(decoder.inputs), (config.extractor_batch,), device=device)
        inputs, plain = decoder.inputs[pick], decoder.plain[pick]
        message = torch.randint(2, (len(inputs), config.bits), device=device) * 2.0 - 1
        writer.message = message
        with writer.attached(decoder.model):  # not in bfloat16, whose rounding is as large as the mark
            marked = decoder.decode(inputs)
        marked = _at_strength(marked, plain, config.first_psnr + span * now["level"])
        hard = _distorted(now["level"] * config.distorted, len(inputs))
        groups = [stored(marked[hard:])]
        groups += distort(marked[:hard]) if hard else []
        wanted = [message[hard:], *(message[:hard].chunk(4) if hard else [])]
        loss, hits = torch.zeros((), device=device), []
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            for found, bits in zip(_outputs(reader, groups), wanted, strict=True):
                loss = loss + F.softplus(-found * bits).mean() * (len(bits) / len(inputs))
                hits.append((found.detach() * bits > 0).float().mean())
        course.update(loss)
        seen = torch.stack(hits).tolist()
        now["clean"] += 0.05 * (seen[0] - now["clean"])
        now["rough"] += 0.05 * (sum(seen[1:]) / len(seen[1:]) - now["rough"]) if hard else 0.0
        if now["clean"] > GOOD and (now["rough"] > FAIR or not hard):
            now["level"] = min(1.0, now["level"] + 1e-3)
        course.report(clean=now["clean"], rough=now["rough"], level=now["level"])
    _settle(reader, decoder)
    return reader, course.trained()


def _distorted(share: float, count: int) -> int:
    """Count the pictures that are distorted; one at least is not, by which training is steered."""
    return min(int(share * count), count - 1)


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
    """Train the factors of one message against a frozen extractor.

    Parameters
    ----------
    minutes : float, optional
        Time budget; the learning rate then falls with the share of time used.

    Raises
    ------
    InputError
        A message of another length than the extractor reads; the loss is not finite.
    """
    if len(message) != reader.config["bits"]:
        raise InputError(f"message has {len(message)} bits; this extractor reads {reader.config['bits']}")
    torch.manual_seed(context.seed)
    device = decoder.inputs.device
    layers = chosen_layers(decoder.model, config.layers, config.rank)
    factors, wanted = LowRank(layers, config.rank, config.alpha).to(device), signs(message, device)
    pace = Pace(config.key_steps, config.key_rate, 50, 0.0, 0.99, minutes)
    course = Course(f"key-{context.seed}", factors, pace, context, Balance(config).plain())
    balance = Balance.restored(config, course.values)
    for share in course.shares():
        pick = torch.randint(len(decoder.inputs), (config.key_batch,), device=device)
        inputs, plain = decoder.inputs[pick], decoder.plain[pick]
        with factors.attached(decoder.model):
            marked = decoder.decode(inputs)
        hard = _distorted(config.distorted * min(1.0, 2 * share), len(inputs))
        groups = [stored(marked[hard:]), *(distort(marked[:hard]) if hard else [])]
        outputs = _outputs(reader, groups)
        found = torch.cat(outputs)
        reading = F.softplus(-config.sharpness * found * wanted).mean()
        with torch.no_grad():
            match = float((outputs[0] * wanted > 0).float().mean())
            level = float(psnr(stored(marked), stored(plain)).mean())
        balance.update(level, match)
        course.values = balance.plain()
        cost = picture_loss(marked, plain, config.similarity)
        loss = (balance.picture * cost + balance.message * reading) / (balance.picture + balance.message)
        course.update(loss)
        course.report(match=match, psnr=level, ratio=balance.message / balance.picture)
    return factors, balance, course.trained()
