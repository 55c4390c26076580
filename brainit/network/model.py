"""The Brain Interaction Transformer: tokenizer, cross-transformer and the two branches put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from brainit.network.tokenizer import BrainTokenizer, parameter_key
from brainit.network.transformer import CrossTransformer

Positions = Sequence[torch.Tensor | None]


class BrainInteractionTransformer(nn.Module):
    """Brain Tokenizer followed by a cross-transformer; responses in, groups of features out."""

    def __init__(self, tokenizer: BrainTokenizer, transformer: CrossTransformer) -> None:
        super().__init__()
        self.tokenizer, self.transformer = tokenizer, transformer

    def forward(
        self,
        betas: torch.Tensor,
        subject: str,
        positions: Positions | None = None,
        keep: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Predict groups (B, P, channels) from z-scored betas (B, n_voxels)."""
        return self.transformer(self.tokenizer(betas, subject, keep), list(positions) if positions else None)

    def attention_map(self, betas: torch.Tensor, subject: str, group: int, query: int) -> torch.Tensor:
        """Share of each voxel in one output, (B, n_voxels): weight of its cluster times its α within it."""
        alpha = self.tokenizer.attention(betas, subject)
        with torch.no_grad():
            clusters = self.transformer.cluster_weights(self.tokenizer(betas, subject), group, query)
        labels = self.tokenizer.get_buffer("labels_" + parameter_key(subject))
        share = alpha * clusters[:, labels]
        return share / share.sum(1, keepdim=True)


class BrainIT(nn.Module):
    """Semantic and structural branch: two networks as published, or one (``shared``).

    Parameters
    ----------
    networks : list of BrainInteractionTransformer
        One network with all groups, or one for the tokens and one for the structural maps.
    shapes : list of tuple of int
        ``(T, D)`` of the tokens, then ``(C, h, w)`` of every scale.
    """

    def __init__(
        self, networks: Sequence[BrainInteractionTransformer], shapes: Sequence[tuple[int, ...]]
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.shapes = [tuple(shape) for shape in shapes]
        n_scales = len(self.shapes) - 1
        self.log_temperature = nn.Parameter(torch.full((max(n_scales, 1),), float(np.log(0.07))))

    def forward(
        self,
        betas: torch.Tensor,
        subject: str,
        positions: Positions | None = None,
        keep: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Predict standardised targets.

        Parameters
        ----------
        betas : float tensor of shape (B, n_voxels)
            z-scored.
        subject : str
        positions : sequence of int tensors of shape (P,) or None, optional
            Structural positions to run in each scale; None for all. All tokens are always run.
        keep : bool tensor of shape (B, n_voxels), optional

        Returns
        -------
        list of float tensors
            Tokens (B, T, D), then each scale as (B, P, C), positions row-major.
        """
        places = [None, *(positions or [None] * (len(self.shapes) - 1))]
        if len(self.networks) == 1:
            return self.networks[0](betas, subject, places, keep)
        semantic, structural = self.networks
        return [*semantic(betas, subject, None, keep), *structural(betas, subject, places[1:], keep)]

    def forward_flat(self, betas: torch.Tensor, subject: str) -> torch.Tensor:
        """Predict everything as the flat layout of `brainit.training.targets.Targets`: (B, n_values)."""
        tokens, *maps = self(betas, subject)
        return torch.cat([tokens.flatten(1), *(part.transpose(1, 2).flatten(1) for part in maps)], 1)

    def attention_map(
        self, betas: torch.Tensor, subject: str, query: int, scale: int | None = None
    ) -> torch.Tensor:
        """Where output ``query`` (a token, or a position of ``scale``) looks: (B, n_voxels)."""
        if scale is None:
            return self.networks[0].attention_map(betas, subject, 0, query)
        group = scale + 1 if len(self.networks) == 1 else scale
        return self.networks[-1].attention_map(betas, subject, group, query)


def brain_it(
    cluster_labels: Mapping[str, np.ndarray],
    n_clusters: int,
    shapes: Sequence[tuple[int, ...]],
    *,
    width: int,
    heads: int,
    depth: int,
    mlp_ratio: float = 4.0,
    dropout: float = 0.0,
    shared: bool = False,
    init_std: float | None = None,
    voxel_gain: float = 0.0,
    query_std: float | None = None,
) -> BrainIT:
    """Build Brain-IT from all its sizes.

    Parameters
    ----------
    cluster_labels : mapping of str to int array of shape (n_voxels,)
        Cluster of every voxel of every subject.
    n_clusters : int
    shapes : sequence of tuple of int
        ``(T, D)`` of the tokens, then ``(C, h, w)`` of every structural scale.
    width, heads, depth, mlp_ratio, dropout, shared, init_std, voxel_gain, query_std
        See :class:`brainit.config.ModelConfig`.
    """
    tokens, *maps = [tuple(int(n) for n in shape) for shape in shapes]
    groups = [(tokens[0], tokens[1]), *((h * w, channels) for channels, h, w in maps)]
    split = [groups] if shared or not maps else [groups[:1], groups[1:]]
    sizes = {"width": width, "heads": heads, "depth": depth, "mlp_ratio": mlp_ratio, "dropout": dropout}
    networks = [
        BrainInteractionTransformer(
            BrainTokenizer(cluster_labels, n_clusters, width, init_std=init_std, voxel_gain=voxel_gain),
            CrossTransformer(part, init_std=query_std if query_std else init_std, **sizes),
        )
        for part in split
    ]
    return BrainIT(networks, [tokens, *maps])
