"""Training losses: mean squared error on tokens, InfoNCE and mean squared error on structural maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

MSE_SHARE = 0.75  # of the mean squared error beside InfoNCE
_MIN_LOG_TEMPERATURE = -4.6  # 0.01: colder logits only sharpen noise


def infonce(predicted: torch.Tensor, target: torch.Tensor, log_temperature: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE with cosine similarity; all other positions of all trials are negatives.

    Parameters
    ----------
    predicted, target : float tensors of shape (B, P, C)
    log_temperature : float tensor of shape ()
    """
    a = F.normalize(predicted.flatten(0, 1), dim=-1)
    b = F.normalize(target.flatten(0, 1), dim=-1)
    logits = a @ b.T / log_temperature.clamp(min=_MIN_LOG_TEMPERATURE).exp()
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def total_loss(
    predicted: Sequence[torch.Tensor],
    target: Sequence[torch.Tensor],
    log_temperature: torch.Tensor,
    *,
    structure_loss: str = "infonce+mse",
    structure_weight: float = 1.0,
) -> torch.Tensor:
    """Add the tokens' MSE and the structural loss averaged over scales.

    Parameters
    ----------
    predicted, target : sequences of float tensors
        Tokens (B, T, D), then each scale (B, P, C), standardised.
    log_temperature : float tensor of shape (n_scales,)
    structure_loss : {"infonce+mse", "mse", "infonce"}
    structure_weight : float
    """
    loss = F.mse_loss(predicted[0], target[0])
    scales = []
    for index, (p, t) in enumerate(zip(predicted[1:], target[1:], strict=True)):
        if structure_loss == "mse":
            scales.append(F.mse_loss(p, t))
            continue
        term = infonce(p, t, log_temperature[index])
        scales.append(term + MSE_SHARE * F.mse_loss(p, t) if structure_loss == "infonce+mse" else term)
    return loss + structure_weight * torch.stack(scales).mean() if scales else loss
