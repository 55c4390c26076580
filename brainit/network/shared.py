"""One Brain Interaction Transformer for everybody: it corrects a linear read-out of the same voxels.

Voxels of simulated and measured subjects are nearly linear in what is decoded from them, and a linear
read-out of each subject (`brainit.training.newcomer`) is hard to beat with thousands of trials. So the
network is given that read-out's tokens beside the brain tokens and predicts what is missing: what a posterior
mean under a Gaussian cannot know of pictures. Untrained, it is the read-out.

Voxel embeddings are not free numbers either: ``z_v = scale * evidence_v @ embed``, where ``evidence_v`` is
what a voxel's tuning says a response adds to the picture (`brainit.voxels.tuning`), and ``embed`` is shared.
So the voxels of a new subject have embeddings as soon as they have tuning; training them further is optional.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from brainit.network.tokenizer import BrainTokenizer, padded_table
from brainit.network.transformer import CrossTransformer
from brainit.voxels.tuning import TokenSpace, Tuning

POOLED = 0.5
"""Spread of a cluster's pooled response before training."""


@dataclass(frozen=True)
class Voxels:
    """What the network knows of one subject's voxels; tensors on one device.

    Parameters
    ----------
    evidence : float tensor of shape (n_voxels, n_components)
        Scaled to unit mean square.
    table : int64 tensor of shape (n_clusters, largest cluster)
        `padded_table` of cluster labels.
    readout : float tensor of shape (n_voxels, n_components)
        The linear read-out of z-scored voxels.
    offset : float tensor of shape (n_components,)
        What it says where every voxel is at its mean.
    own : float tensor of shape (n_voxels, width), optional
        Added to the embeddings: what was trained for this subject alone.
    """

    evidence: torch.Tensor
    table: torch.Tensor
    readout: torch.Tensor
    offset: torch.Tensor
    own: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        evidence: torch.Tensor,
        labels: torch.Tensor,
        n_clusters: int,
        readout: torch.Tensor,
        offset: torch.Tensor,
    ) -> Voxels:
        """Build from cluster labels (n_voxels,)."""
        size = evidence.square().mean().sqrt().clamp(min=1e-12)
        table = padded_table(labels.cpu(), n_clusters).to(evidence.device)
        return cls(evidence / size, table, readout, offset)


class SharedNetwork(nn.Module):
    """Tokenizer, transformer, and the space of tokens in which subjects are read.

    Parameters
    ----------
    n_components : int
        Of the token space.
    n_clusters, width, heads, depth : int
    mlp_ratio : float
    n_tokens, token_width : int
    """

    def __init__(
        self,
        n_components: int = 192,
        n_clusters: int = 32,
        width: int = 96,
        heads: int = 4,
        depth: int = 2,
        mlp_ratio: float = 2.0,
        n_tokens: int = 17,
        token_width: int = 192,
    ) -> None:
        super().__init__()
        given = locals()
        names = (
            "n_components", "n_clusters", "width", "heads", "depth", "mlp_ratio", "n_tokens", "token_width"
        )  # fmt: skip
        self.config: dict[str, Any] = {name: given[name] for name in names}
        self.tokenizer = BrainTokenizer({}, n_clusters, width, init_std=0.1)
        self.embed = nn.Parameter(nn.init.orthogonal_(torch.empty(n_components, width)))
        self.read = nn.Linear(token_width, width)
        self.place = nn.Parameter(torch.randn(n_tokens, width) * 0.1)
        self.transformer = CrossTransformer(
            [(n_tokens, token_width)],
            width=width,
            heads=heads,
            depth=depth,
            mlp_ratio=mlp_ratio,
            init_std=0.5,
        )
        n_values = n_tokens * token_width
        self.register_buffer("mean", torch.zeros(n_values))
        self.register_buffer("back", torch.zeros(n_components, n_values))
        self.register_buffer("prior", torch.eye(n_components))
        self.register_buffer("centres", torch.zeros(n_clusters, n_components))

    @property
    def space(self) -> TokenSpace:
        """The token space that read-outs speak of."""
        return TokenSpace(self.mean, self.back)

    @torch.no_grad()
    def know(self, space: TokenSpace, prior: torch.Tensor, centres: torch.Tensor) -> None:
        """Keep the token space, the prior over tuning and the clusters' centres."""
        for name, value in (
            ("mean", space.mean),
            ("back", space.back),
            ("prior", prior),
            ("centres", centres),
        ):
            getattr(self, name).copy_(value)

    def assign(self, tuning: Tuning) -> torch.Tensor:
        """Return the cluster of each voxel: that of the nearest centre, by direction of tuning."""
        direction = nn.functional.normalize(tuning.weights.T, dim=1)
        return (direction @ self.centres.T).argmax(1)

    def base(self, betas: torch.Tensor, voxels: Voxels) -> torch.Tensor:
        """Return the read-out's tokens (B, n_tokens, token_width) of z-scored betas (B, n_voxels)."""
        tokens = self.space.tokens(betas @ voxels.readout + voxels.offset)
        return tokens.unflatten(1, (self.config["n_tokens"], self.config["token_width"]))

    def embeddings(self, voxels: Voxels) -> torch.Tensor:
        """Return voxel embeddings (n_voxels, width)."""
        count = max(len(voxels.evidence) / self.config["n_clusters"], 1.0)
        z = voxels.evidence @ self.embed * (POOLED * count**0.5)
        return z if voxels.own is None else z + voxels.own

    def forward(self, betas: torch.Tensor, voxels: Voxels, base: torch.Tensor | None = None) -> torch.Tensor:
        """Predict tokens (B, n_tokens, token_width); ``base`` are the read-out's, if known."""
        base = self.base(betas, voxels) if base is None else base
        (correction,) = self.transformer(self._sources(betas, voxels, base))
        return base + correction

    @torch.no_grad()
    def attention_map(self, betas: torch.Tensor, voxels: Voxels, token: int) -> torch.Tensor:
        """Share of each voxel in the correction of one token, (B, n_voxels), rows of sum 1.

        The weight of a voxel's cluster among the brain tokens, times its own within the cluster.
        """
        alpha = self.tokenizer.attention_of(betas, self.embeddings(voxels), voxels.table)
        sources = self._sources(betas, voxels, self.base(betas, voxels))
        weights = self.transformer.cluster_weights(sources, 0, token)
        share = torch.zeros_like(alpha)
        for cluster, members in enumerate(voxels.table):
            own = members[members >= 0]
            share[:, own] = alpha[:, own] * weights[:, cluster, None]
        return share / share.sum(1, keepdim=True)

    def _sources(self, betas: torch.Tensor, voxels: Voxels, base: torch.Tensor) -> torch.Tensor:
        """Return what queries look at: brain tokens, then the read-out's tokens."""
        brain = self.tokenizer.gather(betas, self.embeddings(voxels), voxels.table)
        linear = self.read(base - self.mean.view(base.shape[1:])) + self.place
        return torch.cat([brain, linear], 1)
