"""Frozen picture networks that are read at several depths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from brainit.errors import InputError, MissingDataError


class Backbone(nn.Module):
    """A frozen transformer over patches, whose residual stream can be read and bypassed.

    Parameters
    ----------
    stem : Module
        Pictures (n, 3, side, side) in 0..1 to tokens (n, n_tokens, width).
    blocks : sequence of Module
        Tokens to tokens.
    name : str
        For reports and files.
    width, side : int
        Of a token; of the pictures.
    skip : slice
        Tokens that no voxel looks at, such as registers.
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        *,
        name: str,
        width: int,
        side: int,
        skip: slice = slice(0, 0),
    ) -> None:
        super().__init__()
        self.stem, self.blocks = stem, nn.ModuleList(blocks)
        self.name, self.width, self.side, self.skip = name, width, side, skip
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: nothing of it is trained."""
        return super().train(False)

    def check_taps(self, taps: Sequence[int]) -> None:
        """Raise InputError where a tap lies beyond the last block."""
        if max(taps) > len(self.blocks) or min(taps) < 0:
            raise InputError(
                f"voxel encoder: taps {list(taps)} of {self.name}, which has {len(self.blocks)} blocks; "
                f"allowed: 0 (before the first) to {len(self.blocks)}"
            )

    def forward(
        self, images: torch.Tensor, taps: Sequence[int], bypass: Sequence[nn.Module] | None = None
    ) -> list[torch.Tensor]:
        """Return the residual stream after each of ``taps`` blocks, (n, n_positions, width) each.

        ``bypass`` holds a module a block; what it makes of the stream after the block is added to it.
        """
        x = self.stem(images if images.shape[-1] == self.side else resized(images, self.side))
        found = {0: x}
        for number, block in enumerate(self.blocks[: max(taps)], 1):
            x = block(x)
            if bypass is not None:
                x = x + bypass[number - 1](x)
            found[number] = x
        return [_without(found[tap], self.skip) for tap in taps]


def resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """Resize pictures (n, 3, h, w) in 0..1 to side x side: bicubic, antialiased, clamped."""
    size = (side, side)
    return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def shifted(images: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Shift each picture (n, 3, h, w) by ``by`` (n, 2) rows and columns; the edge is repeated."""
    n, _, h, w = images.shape
    rows = (torch.arange(h) - by[:, :1]).clamp(0, h - 1).to(images.device)
    columns = (torch.arange(w) - by[:, 1:]).clamp(0, w - 1).to(images.device)
    which = torch.arange(n, device=images.device)[:, None, None]
    return images.movedim(1, -1)[which, rows[:, :, None], columns[:, None]].movedim(-1, 1)


def _without(tokens: torch.Tensor, skip: slice) -> torch.Tensor:
    if skip.stop == skip.start:
        return tokens
    return torch.cat([tokens[:, : skip.start], tokens[:, skip.stop :]], 1)


class _HiddenState(nn.Module):
    """A block of transformers, which in some versions answers with a tuple."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.block(x)
        return out[0] if isinstance(out, tuple) else out


class _DinoStem(nn.Module):
    """Normalise as DINOv2 was trained (ImageNet's mean and spread), then embed."""

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("spread", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.embeddings((images - self.mean) / self.spread)


def dinov2(folder: Path | str, *, side: int = 224) -> Backbone:
    """Read DINOv2, with or without registers, from a folder in the form of transformers.

    The published encoder reads ViT-L/14 with registers at 224 pixels: 256 patches and the class token; the
    registers are dropped.

    Raises
    ------
    MissingDataError
        The folder holds no model.
    InputError
        It holds another kind of model, or ``side`` is not a multiple of its patch.
    """
    import json

    folder = Path(folder).expanduser()
    config = folder / "config.json"
    if not config.is_file():
        raise MissingDataError(
            f"{config} does not exist; give a folder with config.json and model.safetensors"
        )
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    from transformers import Dinov2Model, Dinov2WithRegistersModel

    classes = {"dinov2": Dinov2Model, "dinov2_with_registers": Dinov2WithRegistersModel}
    if kind not in classes:
        raise InputError(f"{folder} holds a model of type {kind!r}; allowed: {', '.join(classes)}")
    model = classes[kind].from_pretrained(folder, local_files_only=True, use_safetensors=True)
    patch = model.config.patch_size
    if side % patch:
        raise InputError(f"pictures of {side} pixels do not divide into patches of {patch}; give a multiple")
    registers = getattr(model.config, "num_register_tokens", 0)
    return Backbone(
        _DinoStem(model.embeddings),
        [_HiddenState(block) for block in model.encoder.layer],
        name=f"{kind} in {folder.name}",
        width=model.config.hidden_size,
        side=side,
        skip=slice(1, 1 + registers),
    )
