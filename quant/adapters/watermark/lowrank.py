"""Low-rank factors beside convolutions: in training, for one message or all of them, merged, and in files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from quant.errors import InputError
from quant.interop.lora_files import read_lora
from quant.io import replacing, sort_metadata

PREFIX = "base_model.model."
"""Before layer names in files, as peft writes them."""


def chosen_layers(model: nn.Module, patterns: tuple[str, ...], rank: int) -> dict[str, nn.Conv2d]:
    """Find the convolutions whose names match.

    Raises
    ------
    InputError
        A pattern matches none, the rank is larger than a layer has, or a layer works in groups of channels.
    """
    known = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise InputError(
                f"layers: {pattern!r} matches no convolution of {type(model).__name__}; there are "
                f"{', '.join(list(known)[:4])} and {max(0, len(known) - 4)} more"
            )
    found = {n: m for n, m in known.items() if any(fnmatchcase(n, p) for p in patterns)}
    for name, layer in found.items():
        if layer.groups > 1:
            raise InputError(
                f"layers: {name!r} works in {layer.groups} groups of channels, which two factors in a row "
                "cannot; leave it out"
            )
        most = min(layer.out_channels, layer.weight[0].numel())
        if rank > most:
            raise InputError(f"rank {rank} is larger than layer {name!r} has: {most} at most")
    return found


class LowRank(nn.Module):
    """Factors A (r filters of the layer's kernel) and B (1 x 1); their product counts alpha / r times.

    Parameters
    ----------
    layers : dict of str to Conv2d
    rank : int
    alpha : float
    bits : int, optional
        With it, a mapper stands between the factors: each of the r channels is scaled by a linear function of
        the message (AquaLoRA), so that one set of factors carries every message. Without it B starts at zero.
    """

    def __init__(
        self, layers: Mapping[str, nn.Conv2d], rank: int, alpha: float, bits: int | None = None
    ) -> None:
        super().__init__()
        self.names, self.rank, self.scale = tuple(layers), rank, alpha / rank
        self.alpha = alpha
        self.down, self.up, self.mapper = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for layer in layers.values():
            down = torch.empty(rank, *layer.weight.shape[1:])
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
            up = torch.zeros(layer.out_channels, rank, 1, 1)
            if bits is not None:
                nn.init.normal_(up, std=0.02)
                # every bit begins with channels of its own
                self.mapper.append(
                    torch.eye(bits).repeat(-(-rank // bits), 1)[:rank]
                    + 0.1 * torch.randn(rank, bits) / math.sqrt(bits)
                )
            self.down.append(down)
            self.up.append(up)
        self.message: Tensor | None = None
        """Messages (n, bits) of +-1 of the batch, where there is a mapper."""

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Add the factors' outputs to the layers' while this lasts."""
        handles = [
            model.get_submodule(name).register_forward_hook(self._hook(index))
            for index, name in enumerate(self.names)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, index: int) -> Any:
        def add(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            assert isinstance(module, nn.Conv2d)
            # as the layer does: its stride, its dilation, its kind of padding
            hidden = module._conv_forward(args[0], self.down[index], None)
            if len(self.mapper):
                assert self.message is not None
                hidden = hidden * (self.message @ self.mapper[index].T)[:, :, None, None]
            return out + self.scale * F.conv2d(hidden, self.up[index])

        return add

    def deltas(self) -> dict[str, Tensor]:
        """Return what each layer's weight changes by, (alpha / r) B A."""
        pairs = zip(self.names, self.down, self.up, strict=True)
        return {n: self.scale * torch.einsum("or,rikl->oikl", u[..., 0, 0], d) for n, d, u in pairs}

    def tensors(self) -> dict[str, Tensor]:
        """Return the factors under peft's names, in half precision."""
        out = {}
        for name, down, up in zip(self.names, self.down, self.up, strict=True):
            out[f"{PREFIX}{name}.lora_A.weight"] = down.detach().half().cpu().contiguous()
            out[f"{PREFIX}{name}.lora_B.weight"] = up.detach().half().cpu().contiguous()
        return out


@torch.no_grad()
def merge_(model: nn.Module, deltas: Mapping[str, Tensor], sign: float = 1.0) -> None:
    """Add deltas to the layers' weights in place; with sign -1 take them away again."""
    for name, delta in deltas.items():
        weight = model.get_submodule(name).get_parameter("weight")
        weight.add_(delta.to(weight), alpha=sign)


def write_key(path: Path, factors: LowRank, about: dict[str, Any]) -> None:
    """Write factors in peft's convention; `about` goes into the metadata under ``watermark``."""
    adapter = {"r": factors.rank, "lora_alpha": factors.alpha, "target_modules": list(factors.names)}
    metadata = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps(adapter),
        "watermark": json.dumps(about, sort_keys=True),
    }
    with replacing(path) as temporary:
        save_file(factors.tensors(), temporary, metadata=metadata)
        sort_metadata(temporary)


def read_about(path: Path) -> dict[str, Any]:
    """Read what `write_key` kept beside the factors.

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        Not a safetensors file, or a LoRA without a watermark.
    """
    from safetensors import safe_open

    read_lora(path)  # refuses what is no LoRA, in one line
    with safe_open(path, framework="pt", device="cpu") as file:
        text = (file.metadata() or {}).get("watermark")
    try:
        about = json.loads(text or "")
        if not isinstance(about["message"], str) or not about["message"]:
            raise KeyError("message")
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path} is a LoRA without a watermark's message: train one with watermark train"
        ) from None
    return dict(about)


def read_deltas(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Read a key's factors and multiply them out, one delta for each layer of `model`.

    Raises
    ------
    InputError
        A layer that the model lacks, or whose shape differs; values that are not finite.
    """
    file = read_lora(path)
    deltas = {}
    known = dict(model.named_modules())
    for name, f in file.factors.items():
        if name not in known or f.down is None or f.up is None:
            raise InputError(f"{path}: {type(model).__name__} has no layer {name!r}, or a factor is missing")
        scale = 1.0 if f.alpha is None else f.alpha / f.down.shape[0]
        weight = known[name].get_parameter("weight")
        delta = scale * torch.einsum("or,rikl->oikl", f.up.float()[..., 0, 0], f.down.float())
        if delta.shape != weight.shape or not bool(torch.isfinite(delta).all()):
            raise InputError(
                f"{path}: factors of {name!r} do not fit its weight {tuple(weight.shape)}, or are not finite"
            )
        deltas[name] = delta
    return deltas
