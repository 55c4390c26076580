"""What a study's methods say of tests, painted by one decoder and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from brainit.network.shared import SharedNetwork
from brainit.voxels.ridge import fit_ridge_loo
from lab.decoding.cohort.choice import MOST, LeftOut, choose, kept_out
from lab.decoding.cohort.ground import SHARED, Ground, open_network
from lab.decoding.cohort.scoreboard import SHIPPED, Scoreboard
from lab.decoding.cohort.subjects import Known, Member, know
from lab.decoding.cohort.training import Trainer
from lab.zoo import load, null_tokens
from lab.zoo.shared import DENOISER, NAME
from lab.zoo.shared.painting import Painter

SHOWN = 10
Decoder = tuple[Any, torch.Tensor]


class Said(NamedTuple):
    """What a method says of one member's test, flat tokens (n_test, n_values), and of trials it left out."""

    name: str
    tokens: torch.Tensor
    left: LeftOut


@dataclass
class Methods:
    """Adds methods to a board.

    Parameters
    ----------
    ground : Ground
    painter : Painter
    trainer : Trainer
    board : Scoreboard
    """

    ground: Ground
    painter: Painter
    trainer: Trainer
    board: Scoreboard

    def __post_init__(self) -> None:
        self.size, self.seed, self.cohort = self.ground.size, self.ground.seed, self.ground.cohort
        self.denoiser = load(DENOISER, self.painter.device)
        self.null = null_tokens(DENOISER)
        self.blank, self.known, self.new = self.ground.blank, self.ground.known, self.ground.new

    @property
    def shared(self) -> SharedNetwork:
        """The network of all subjects but the newcomer after stage 1."""
        return open_network(self.trainer.folder / SHARED, self.cohort).eval()

    def add(
        self,
        group: str,
        what: str,
        said: Sequence[Said],
        decoder: Decoder | None = None,
        guidance: float | None = None,
        **changes: Any,
    ) -> float:
        """Paint and score what a method says of several members' tests; return the guidance.

        Without ``guidance`` it is chosen on what was left out of all of them.
        """
        denoiser, null = decoder or (self.denoiser, self.null)
        if guidance is None:
            left = LeftOut.join([one.left for one in said], min(MOST, self.size.n_test // 2))
            guidance = choose(left, self.cohort.seen, self.painter, denoiser, null, self.size.sampling)
        true = self.cohort.seen.tokens[self.cohort.tested]
        for name, tokens, _ in said:
            shaped = tokens.reshape(len(tokens), 17, -1).float()
            how = {"steps": self.size.sampling} | changes
            made, scores = self.painter.paint(denoiser, null.cpu(), shaped, guidance, **how)
            error = (tokens - true).square().sum(1) / (true - true.mean(0)).square().sum(1).mean()
            scores |= {"tokens": 1 - error.cpu().numpy(), "guidance": np.full(len(made), guidance)}
            self.board.scores[group, what, name] = scores
            self.board.pictures[group, what] = (made[:SHOWN] * 255).round().astype(np.uint8)
        return guidance

    def left_out(self, one: Known) -> torch.Tensor:
        """Return the trials of a member by which guidance is chosen."""
        return kept_out(one, 0 if one.member.name == self.new.name else self.size.held)

    def ridge(self, one: Known) -> Said:
        """Ridge from voxels to tokens, its penalty by leave-one-out."""
        member, rows = one.member, self.left_out(one)
        goals = self.cohort.seen.tokens[member.index].cpu().numpy()
        fitted, loo = fit_ridge_loo(member.trials.cpu().numpy(), goals, device=self.painter.device)
        guess = torch.from_numpy(fitted.predict(member.test.cpu().numpy()).astype(np.float32))
        left = torch.from_numpy(loo[rows.cpu().numpy()])
        return Said(member.name, guess.to(member.test), LeftOut(left.to(member.test), member.index[rows]))

    def bayes(self, one: Known, network: SharedNetwork) -> Said:
        """Bayes decoding with the prior of others."""
        member, reading, rows = one.member, one.reading, self.left_out(one)
        tokens = network.space.tokens(member.test @ reading.bayes + reading.offset)
        left = network.space.tokens(reading.bayes_left_out[rows])
        return Said(member.name, tokens, LeftOut(left, member.index[rows]))

    @torch.no_grad()
    def network(self, one: Known, network: SharedNetwork) -> Said:
        """Return what a network says, given what the read-out says of a trial that it was fitted without."""
        member, rows = one.member, self.left_out(one)
        tokens = network.eval()(member.test, one.voxels).flatten(1)
        base = network.space.tokens(one.reading.left_out[rows]).unflatten(1, (17, -1))
        left = network(member.trials[rows], one.voxels, base).flatten(1)
        return Said(member.name, tokens, LeftOut(left, member.index[rows]))

    def shipped(self, group: str, members: Sequence[Member]) -> None:
        """Add the network of the zoo, which learned from other people, adapted in closed form."""
        network = load(NAME, self.painter.device)
        some = know(network, members, self.cohort.seen.tokens, self.seed)
        self.add(group, SHIPPED, [self.network(one, network) for one in some])
