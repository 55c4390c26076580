"""The methods of a study: each on the same test trials through the same decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainit.network.shared import SharedNetwork
from brainit.training.adapting import TRIALS_A_MINUTE, train_embeddings
from brainit.voxels.ridge import fit_ridge
from lab.decoding.cohort import Size
from lab.decoding.cohort.bounds import ENDLESS, NOISELESS, bound
from lab.decoding.cohort.scoreboard import NEWCOMER, RIVAL, SHIPPED, SINGLE, STAGE_1, Scoreboard
from lab.decoding.cohort.subjects import Cohort, Known, Member, begin, know, reclustered
from lab.decoding.cohort.training import Trainer
from lab.images import sheet, write_picture
from lab.zoo import load, null_tokens
from lab.zoo.shared import DENOISER, NAME
from lab.zoo.shared.painting import Painter

GUIDANCE, STRENGTH = 3.0, 0.7
SHOWN = 10
EMBEDDING_EPOCHS = 20


@dataclass
class Study:
    """Trains what has no scores yet; what the board holds is neither trained for nor painted again."""

    cohort: Cohort
    size: Size
    painter: Painter
    trainer: Trainer
    seed: int
    board: Scoreboard
    keep: Callable[[], Any]

    def __post_init__(self) -> None:
        self.sizes: dict[str, Any] = dict(self.size.sizes)
        self.denoiser = load(DENOISER, self.painter.device)
        self.null = null_tokens(DENOISER)
        self.old, self.new = self.cohort.members[:-1], self.cohort.members[-1]
        self.blank = begin(self.old, self.cohort, self.seed, **self.sizes)
        self.known = know(self.blank, self.old, self.cohort.seen.tokens, self.seed)
        # low and high noise ceilings alike
        some = np.linspace(0, len(self.known) - 1, min(self.size.shown, len(self.known))).round()
        self.shown = [self.known[int(k)] for k in some]
        self._shared: SharedNetwork | None = None

    @property
    def shared(self) -> SharedNetwork:
        """The network of all subjects but the newcomer after stage 1."""
        if self._shared is None:
            self._shared = self.trainer.tokens("functional", deepcopy(self.blank), self.known)
        return self._shared

    def add(
        self,
        group: str,
        what: str,
        member: Member,
        tokens: torch.Tensor,
        decoder: tuple[Any, torch.Tensor] | None = None,
        **changes: Any,
    ) -> None:
        """Paint and score flat tokens (n_test, n_values)."""
        denoiser, null = decoder or (self.denoiser, self.null)
        shaped = tokens.reshape(len(tokens), 17, -1).float()
        made, scores = self.painter.paint(
            denoiser, null.cpu(), shaped, GUIDANCE, **({"steps": self.size.sampling} | changes)
        )
        true = self.cohort.seen.tokens[self.cohort.tested]
        error = (tokens - true).square().sum(1) / (true - true.mean(0)).square().sum(1).mean()
        self.board.scores[group, what, member.name] = scores | {"tokens": 1 - error.cpu().numpy()}
        self.board.pictures[group, what] = (made[:SHOWN] * 255).round().astype(np.uint8)

    def wants(self, group: str, what: str, some: Sequence[Member | Known]) -> bool:
        """Return whether scores of these subjects are missing."""
        names = [one.member.name if isinstance(one, Known) else one.name for one in some]
        return not self.board.has(group, what, *names)

    def ridge(self, group: str, what: str, member: Member) -> None:
        """Add ridge from voxels to tokens, its penalty by leave-one-out."""
        if self.wants(group, what, [member]):
            goals = self.cohort.seen.tokens[member.index].cpu().numpy()
            fitted = fit_ridge(member.trials.cpu().numpy(), goals, device=self.painter.device)
            guess = torch.from_numpy(fitted.predict(member.test.cpu().numpy()).astype(np.float32))
            self.add(group, what, member, guess.to(member.test))

    def bayes(self, group: str, what: str, one: Known, network: SharedNetwork) -> None:
        """Add Bayes decoding with the prior of others."""
        if self.wants(group, what, [one]):
            found = network.space.tokens(one.member.test @ one.reading.bayes + one.reading.offset)
            self.add(group, what, one.member, found)

    @torch.no_grad()
    def network(self, group: str, what: str, one: Known, network: SharedNetwork, **how: Any) -> None:
        """Add a network."""
        if self.wants(group, what, [one]):
            tokens = network.eval()(one.member.test, one.voxels).flatten(1)
            self.add(group, what, one.member, tokens, **how)

    def run(self) -> None:
        """Train everything and fill the table."""
        for step in (
            self._read_outs, self._stage_1, self._clusters, self._external, self._branches, self._single,
            self._newcomer, self._stages, self._bounds,
        ):  # fmt: skip
            step()
            self.keep()

    def _read_outs(self) -> None:
        for one in self.shown:
            self.ridge("cohort", RIVAL, one.member)
            self.bayes("cohort", "shared prior, Bayes", one, self.blank)
            self.network("cohort", "read-out (both, stacked)", one, self.blank)
        if self.wants("cohort", SHIPPED, self.shown):
            # the network of the zoo, which learned from other people, adapted in closed form
            network = load(NAME, self.painter.device)
            members = [one.member for one in self.shown]
            for one in know(network, members, self.cohort.seen.tokens, self.seed):
                self.network("cohort", SHIPPED, one, network)

    def _bounds(self) -> None:
        if self.wants("bound", "true tokens", [self.new]):
            self.add("bound", "true tokens", self.new, self.cohort.seen.tokens[self.cohort.tested])
        most = self._group(self.size.minutes[-1])[0]
        # the lowest noise ceiling and the highest, beside what was reached there
        for member, home in ((self.shown[0].member, "cohort"), (self.new, most)):
            group = f"bound, ceiling {member.ceiling:.1f}"
            for what in (NOISELESS, ENDLESS):
                if self.wants(group, what, [member]):
                    self.add(group, what, member, bound(what, member, self.cohort))
            for what in (RIVAL, SHIPPED, STAGE_1 if home == "cohort" else "shared network"):
                if self.board.has(home, what, member.name):
                    self.board.scores[group, what, member.name] = self.board.scores[home, what, member.name]

    def _stage_1(self) -> None:
        if self.wants("cohort", STAGE_1, self.shown):
            for one in self.shown:
                self.network("cohort", STAGE_1, one, self.shared)

    def _clusters(self) -> None:
        for kind in ("anatomical", "random"):
            if self.wants("clusters", kind, self.shown):
                other = reclustered(self.blank, self.known, kind, self.seed)
                network = self.trainer.tokens(kind, deepcopy(self.blank), other)
                names = [one.member.name for one in self.shown]
                for one in other:
                    if one.member.name in names:
                        self.network("clusters", kind, one, network)

    def _external(self) -> None:
        what = "no external pictures"
        if self.wants("external", what, self.shown):
            network = self.trainer.tokens("no-external", deepcopy(self.blank), self.known, external=False)
            for one in self.shown:
                self.network("external", what, one, network)

    def _stages(self) -> None:
        for learns in ("frozen", "lora" if self.painter.device == "cpu" else "whole"):
            what = f"shared, stage 2, denoiser {'by LoRA' if learns == 'lora' else learns}"
            if self.wants("cohort", what, self.shown):
                network, denoiser, null = self.trainer.pictures(
                    f"stage-2-{learns}", deepcopy(self.shared), self.known, learns
                )
                for one in self.shown:
                    self.network("cohort", what, one, network, decoder=(denoiser, null))
                self.keep()

    def _ends(self) -> list[Known]:
        """Return the subjects of the lowest and the highest noise ceiling that are shown."""
        return [self.shown[0], self.shown[-1]][: len(self.shown)]

    def _branches(self) -> None:
        images = self.cohort.seen.images
        for one in self._ends():
            if not self.wants("branches", "both", [one]):
                continue
            pixels = images[one.member.index.cpu()].flatten(1).numpy().astype(np.float32) / 255
            fitted = fit_ridge(one.member.trials.cpu().numpy(), pixels, device=self.painter.device)
            blur = fitted.predict(one.member.test.cpu().numpy()).clip(0, 1).astype(np.float32)
            start = torch.from_numpy(blur).view(-1, 3, 64, 64).to(self.painter.device)
            scores = self.painter.score(start)
            self.board.scores["branches", "structure alone", one.member.name] = scores
            self.network("branches", "tokens alone", one, self.shared)
            steps = max(1, round(self.size.sampling * STRENGTH))
            how = {"start": start, "strength": STRENGTH, "steps": steps}
            self.network("branches", "both", one, self.shared, **how)

    def _single(self) -> None:
        for one in self._ends():
            member = one.member
            if not self.wants("cohort", SINGLE, [member]):
                continue
            network = begin([member], self.cohort, self.seed, alone=True, **self.sizes)
            (own,) = know(network, [member], self.cohort.seen.tokens, self.seed)
            self.network("cohort", "single, read-out", own, network)
            network = self.trainer.tokens(f"single-{member.name}", network, [own])
            self.network("cohort", SINGLE, own, network)

    def _group(self, minutes: int) -> tuple[str, int]:
        """Return the group of a newcomer's rows, and its number of trials."""
        n = min(len(self.new.index), round(TRIALS_A_MINUTE * minutes))
        return f"{NEWCOMER}, {minutes} min, {n} trials", n

    def _newcomer(self) -> None:
        for minutes in self.size.minutes:
            group, n = self._group(minutes)
            if self.wants(group, SINGLE, [self.new]):
                self._read_newcomer(self.new.first(n), group, minutes)
                self.keep()

    def _read_newcomer(self, member: Member, group: str, minutes: int) -> None:
        tokens = self.cohort.seen.tokens
        (one,) = know(self.blank, [member], tokens, self.seed)
        self.ridge(group, RIVAL, member)
        self.bayes(group, "shared prior, Bayes", one, self.blank)
        self.network(group, "read-out (both, stacked)", one, self.blank)
        self.network(group, "shared network", one, self.shared)
        network = load(NAME, self.painter.device)
        (other,) = know(network, [member], tokens, self.seed)
        self.network(group, SHIPPED, other, network)
        what = "shared network, embeddings trained"
        if self.wants(group, what, [member]):
            voxels, _ = train_embeddings(
                self.shared, one.voxels, one.reading, member.trials, tokens[member.index], EMBEDDING_EPOCHS,
                1e-3, self.seed, self.trainer.progress,
            )  # fmt: skip
            self.network(group, what, replace(one, voxels=voxels), self.shared)
        alone = begin([member], self.cohort, self.seed, alone=True, **self.sizes)
        (own,) = know(alone, [member], tokens, self.seed)
        alone = self.trainer.tokens(f"newcomer-alone-{minutes}", alone, [own], share=0.5)
        self.network(group, SINGLE, own, alone)

    def show(self, file: Path) -> None:
        """Write a sheet: the stimuli, then a row for each method, of the last subject it was tried on."""
        rows = [
            self.painter.truth[:SHOWN],
            *(p.astype(np.float32) / 255 for p in self.board.pictures.values()),
        ]
        write_picture(sheet(np.concatenate(rows), SHOWN, gap=2), file)
