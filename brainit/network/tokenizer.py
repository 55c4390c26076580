"""Brain Tokenizer: voxels to one token a functional cluster (Brain-IT, arXiv 2510.25976).

Every voxel v has an embedding z_v, every cluster k an embedding c_k. One attention head runs from a cluster
to its own voxels: with m_v = x_v z_v (x_v the response),

    token_k = Σ_v α_v (W_v m_v + b_v) + W_s c_k + b_s,   α = softmax over v in k of  q_k · W_k m_v / √D,

followed by ReLU and LayerNorm. Because m_v is a scalar times z_v, the same numbers come from

    a_v = z_v · (W_kᵀ q_k),   α_v ∝ exp(x_v a_v / √D),   Σ_v α_v W_v m_v = W_v Σ_v α_v x_v z_v,

which needs no matrix product a voxel: O(N·D) a trial rather than O(N·D²). A key bias adds the same q_k · b_k
to every voxel of a cluster and cancels in the softmax, so there is none. A cluster without voxels is W_s c_k
+ b_s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from brainit.errors import InputError


def parameter_key(subject: str) -> str:
    """Name of a subject's parameters (torch allows no dot in it)."""
    return subject.replace(".", "_")


def padded_table(labels: torch.Tensor, n_clusters: int) -> torch.Tensor:
    """List each cluster's voxels: int64 (n_clusters, largest cluster), padded with -1."""
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels, minlength=n_clusters)
    table = torch.full((n_clusters, max(int(counts.max()), 1)), -1, dtype=torch.long)
    table[torch.arange(table.shape[1]) < counts[:, None]] = order
    return table


class BrainTokenizer(nn.Module):
    """Turn responses of any subject into brain tokens.

    Parameters
    ----------
    labels : mapping of str to int array of shape (n_voxels,)
        Cluster of every voxel, for each subject.
    n_clusters, width : int
    init_std : float
        Standard deviation of the initial embeddings; the published value is 0.1 / (2 √width).
    voxel_gain : float
        See :meth:`voxel_std`.
    """

    def __init__(
        self,
        labels: Mapping[str, np.ndarray],
        n_clusters: int,
        width: int,
        *,
        init_std: float | None = None,
        voxel_gain: float = 0.0,
    ) -> None:
        super().__init__()
        self.voxel_gain = voxel_gain
        self.n_clusters, self.width = n_clusters, width
        self.init_std = 0.1 / (2 * math.sqrt(width)) if init_std is None else init_std
        self.clusters = nn.Parameter(torch.randn(n_clusters, width) * self.init_std)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.skip = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.voxels = nn.ParameterDict()
        for name, clusters in labels.items():
            self.add_subject(name, clusters)

    def add_subject(self, name: str, labels: np.ndarray, embeddings: torch.Tensor | None = None) -> None:
        """Give a subject its own voxel embeddings, random or a copy of ``embeddings`` (n_voxels, width)."""
        labels = torch.as_tensor(np.asarray(labels), dtype=torch.long)
        if (
            labels.ndim != 1
            or len(labels) == 0
            or int(labels.min()) < 0
            or int(labels.max()) >= self.n_clusters
        ):
            raise InputError(
                f"subject {name!r}: cluster labels must be (n_voxels,) integers in 0..{self.n_clusters - 1}"
            )
        std = self.voxel_std(len(labels))
        start = torch.randn(len(labels), self.width) * std if embeddings is None else embeddings.clone()
        key = parameter_key(name)
        self.voxels[key] = nn.Parameter(start.to(self.clusters))
        self.register_buffer(f"labels_{key}", labels.to(self.clusters.device))
        self.register_buffer(f"table_{key}", padded_table(labels, self.n_clusters).to(self.clusters.device))

    def voxel_std(self, n_voxels: int) -> float:
        """Spread of a subject's initial voxel embeddings.

        A cluster averages n_voxels / n_clusters voxels, so its pooled response has the embeddings' spread
        over the root of that count. ``voxel_gain`` sets the pooled spread; 0 takes ``init_std`` as published.
        """
        if not self.voxel_gain:
            return self.init_std
        return self.voxel_gain * math.sqrt(max(n_voxels / self.n_clusters, 1.0))

    @torch.no_grad()
    def set_embeddings(self, name: str, embeddings: torch.Tensor) -> None:
        """Overwrite a subject's voxel embeddings (n_voxels, width)."""
        self.voxels[parameter_key(name)].copy_(embeddings)

    def _subject(self, name: str, betas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        key = parameter_key(name)
        if key not in self.voxels:
            raise InputError(f"unknown subject {name!r}; this model knows {sorted(self.voxels)}")
        z = self.voxels[key]
        if betas.ndim != 2 or betas.shape[1] != len(z):
            raise InputError(f"subject {name!r} has {len(z)} voxels, got betas of shape {tuple(betas.shape)}")
        return z, getattr(self, f"labels_{key}"), getattr(self, f"table_{key}")

    def _finish(self, pooled: torch.Tensor, occupied: torch.Tensor) -> torch.Tensor:
        """``pooled`` (B, K, D) = Σ α x z and ``occupied`` (B, K): whether a cluster had a voxel."""
        value = (self.value(pooled)) * occupied[..., None]
        return self.norm(torch.relu(value + self.skip(self.clusters)))

    def _weights(
        self, betas: torch.Tensor, z: torch.Tensor, table: torch.Tensor, keep: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        real = table >= 0
        # padding points to all voxels in turn: on a GPU gradients of a repeated one are added one by one
        filler = torch.arange(table.numel(), device=table.device).view_as(table) % len(z)
        safe = torch.where(real, table, filler)
        grouped = z[safe]  # (K, L, D)
        slope = (grouped * (self.query(self.clusters) @ self.key.weight)[:, None]).sum(-1) / math.sqrt(
            self.width
        )
        x = betas[:, safe]  # (B, K, L)
        mask = real.expand_as(x) if keep is None else real & keep[:, safe]
        logits = (x * slope).masked_fill(~mask, -torch.inf)
        occupied = mask.any(-1)
        top = torch.where(occupied, logits.detach().amax(-1), 0.0)
        weight = (logits - top[..., None]).exp()
        alpha = weight / weight.sum(-1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        return alpha, x, grouped, occupied

    def forward(self, betas: torch.Tensor, subject: str, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Compute brain tokens by the scalar shortcut.

        Parameters
        ----------
        betas : float tensor of shape (B, n_voxels)
        subject : str
        keep : bool tensor of shape (B, n_voxels), optional
            Voxels that take part (sub-sampling in training).

        Returns
        -------
        float tensor of shape (B, n_clusters, width)
        """
        z, _, table = self._subject(subject, betas)
        return self.gather(betas, z, table, keep)

    def gather(
        self, betas: torch.Tensor, z: torch.Tensor, table: torch.Tensor, keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute brain tokens of voxels given by embeddings (n_voxels, width) and `padded_table`."""
        alpha, x, grouped, occupied = self._weights(betas, z, table, keep)
        pooled = torch.bmm((alpha * x).transpose(0, 1), grouped).transpose(0, 1)  # (B, K, D)
        return self._finish(pooled, occupied)

    def forward_plain(
        self, betas: torch.Tensor, subject: str, keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the same tokens voxel by voxel as published; slow, kept as the reference."""
        z, labels, _ = self._subject(subject, betas)
        m = betas[..., None] * z  # (B, N, D)
        score = (self.query(self.clusters)[labels] * self.key(m)).sum(-1) / math.sqrt(self.width)
        value = self.value(m)
        tokens = []
        for k in range(self.n_clusters):
            member = (labels == k).expand_as(betas) if keep is None else (labels == k) & keep
            rows = []
            for b in range(len(betas)):
                own = self.skip(self.clusters[k])
                if member[b].any():
                    own = own + score[b, member[b]].softmax(0) @ value[b, member[b]]
                rows.append(own)
            tokens.append(torch.stack(rows))
        return self.norm(torch.relu(torch.stack(tokens, 1)))

    @torch.no_grad()
    def attention(self, betas: torch.Tensor, subject: str) -> torch.Tensor:
        """Weight α of every voxel within its cluster, (B, n_voxels): a brain map that sums to 1 a cluster."""
        z, _, table = self._subject(subject, betas)
        return self.attention_of(betas, z, table)

    @torch.no_grad()
    def attention_of(self, betas: torch.Tensor, z: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Return `attention` of voxels given by embeddings (n_voxels, width) and `padded_table`."""
        alpha, *_ = self._weights(betas, z, table, None)
        out = betas.new_zeros(betas.shape)
        out[:, table[table >= 0]] = alpha[:, table >= 0]
        return out


def draw_voxels(n_trials: int, n_voxels: int, draws: int, generator: torch.Generator) -> torch.Tensor | None:
    """Draw voxels with replacement for every trial; a voxel drawn twice counts once.

    Returns a bool tensor (n_trials, n_voxels), or None where ``draws`` is 0 (take all voxels).
    """
    if draws <= 0:
        return None
    keep = torch.zeros(n_trials, n_voxels, dtype=torch.bool)
    return keep.scatter_(1, torch.randint(n_voxels, (n_trials, draws), generator=generator), True)
