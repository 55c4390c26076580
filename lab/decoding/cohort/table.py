"""The rows of a study: every method on the same test trials through the same decoder, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainit import metrics
from brainit.network.shared import SharedNetwork
from brainit.training.adapting import TRIALS_A_MINUTE, train_embeddings
from brainit.voxels.ridge import fit_ridge
from lab.decoding.cohort import Size
from lab.decoding.cohort.subjects import Cohort, Known, Member, begin, know, reclustered
from lab.decoding.cohort.training import Trainer
from lab.images import sheet, write_picture
from lab.zoo import load, null_tokens
from lab.zoo.shared import DENOISER, NAME
from lab.zoo.shared.painting import Painter, Scores

GUIDANCE, STRENGTH = 3.0, 0.7
SHOWN = 10
RIVAL = "ridge to tokens"
EMBEDDING_EPOCHS = 20


@dataclass
class Study:
    """Scores of every method on every subject, as they come."""

    cohort: Cohort
    size: Size
    painter: Painter
    trainer: Trainer
    seed: int
    keep: Callable[[Study], Any]
    scores: dict[tuple[str, str, str], Scores] = field(default_factory=dict)
    pictures: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sizes: dict[str, Any] = dict(self.size.sizes)
        self.denoiser = load(DENOISER, self.painter.device)
        self.null = null_tokens(DENOISER)

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
        self.scores[group, what, member.name] = scores | {"tokens": 1 - error.cpu().numpy()}
        self.pictures[group, what] = made[:SHOWN]

    def ridge(self, group: str, what: str, member: Member) -> None:
        """Add ridge from voxels to tokens, its penalty by leave-one-out."""
        goals = self.cohort.seen.tokens[member.index].cpu().numpy()
        fitted = fit_ridge(member.trials.cpu().numpy(), goals, device=self.painter.device)
        guess = torch.from_numpy(fitted.predict(member.test.cpu().numpy()).astype(np.float32))
        self.add(group, what, member, guess.to(member.test))

    def bayes(self, group: str, what: str, one: Known, network: SharedNetwork) -> None:
        """Add Bayes decoding with the prior of others."""
        found = network.space.tokens(one.member.test @ one.reading.bayes + one.reading.offset)
        self.add(group, what, one.member, found)

    @torch.no_grad()
    def network(self, group: str, what: str, one: Known, network: SharedNetwork, **how: Any) -> None:
        """Add a network."""
        tokens = network.eval()(one.member.test, one.voxels).flatten(1)
        self.add(group, what, one.member, tokens, **how)

    def run(self) -> None:
        """Train everything and fill the table."""
        old, new = self.cohort.members[:-1], self.cohort.members[-1]
        tokens = self.cohort.seen.tokens
        blank = begin(old, self.cohort, self.seed, **self.sizes)
        known = know(blank, old, tokens, self.seed)
        shown = known[: self.size.shown]
        true = tokens[self.cohort.tested]
        self.add("bound", "true tokens", old[0], true)
        for one in shown:
            self.ridge("cohort", RIVAL, one.member)
            self.bayes("cohort", "shared prior, Bayes", one, blank)
            self.network("cohort", "read-out (both, stacked)", one, blank)
        self._shipped(shown)
        self.keep(self)
        shared = self.trainer.tokens("functional", deepcopy(blank), known)
        for one in shown:
            self.network("cohort", "shared, stage 1", one, shared)
        self.keep(self)
        self._newcomer(new, blank, shared)
        self._stages(shared, known)
        self.keep(self)
        self._single(old)
        self.keep(self)
        self._clusters(blank, known)
        outside = self.trainer.tokens("no-external", deepcopy(blank), known, external=False)
        for one in shown:
            self.network("external", "no external pictures", one, outside)
        self._branches(shared, shown)

    def _shipped(self, shown: list[Known]) -> None:
        """Add the network of the zoo, which learned from other people, adapted in closed form."""
        network = load(NAME, self.painter.device)
        for one in know(network, [one.member for one in shown], self.cohort.seen.tokens, self.seed):
            self.network("cohort", "shipped network, adapted", one, network)

    def _clusters(self, blank: SharedNetwork, known: list[Known]) -> None:
        for kind in ("anatomical", "random"):
            other = reclustered(blank, known, kind, self.seed)
            network = self.trainer.tokens(kind, deepcopy(blank), other)
            for one in other[: self.size.shown]:
                self.network("clusters", kind, one, network)

    def _stages(self, shared: SharedNetwork, known: list[Known]) -> None:
        kinds = ("frozen", "lora" if self.painter.device == "cpu" else "whole")
        for learns in kinds:
            network, denoiser, null = self.trainer.pictures(
                f"stage-2-{learns}", deepcopy(shared), known, learns
            )
            what = f"shared, stage 2, denoiser {'by LoRA' if learns == 'lora' else learns}"
            for one in known[: self.size.shown]:
                self.network("cohort", what, one, network, decoder=(denoiser, null))

    def _branches(self, shared: SharedNetwork, shown: list[Known]) -> None:
        images = self.cohort.seen.images
        for one in shown[:2]:
            pixels = images[one.member.index.cpu()].flatten(1).numpy().astype(np.float32) / 255
            fitted = fit_ridge(one.member.trials.cpu().numpy(), pixels, device=self.painter.device)
            blur = fitted.predict(one.member.test.cpu().numpy()).clip(0, 1).astype(np.float32)
            start = torch.from_numpy(blur).view(-1, 3, 64, 64).to(self.painter.device)
            scores = self.painter.score(start)
            self.scores["branches", "structure alone (ridge to pixels)", one.member.name] = scores
            self.network("branches", "tokens alone", one, shared)
            steps = max(1, round(self.size.sampling * STRENGTH))
            how = {"start": start, "strength": STRENGTH, "steps": steps}
            self.network("branches", f"both, from strength {STRENGTH}", one, shared, **how)

    def _single(self, members: list[Member]) -> None:
        for member in members[:2]:
            network = begin([member], self.cohort, self.seed, alone=True, **self.sizes)
            (one,) = know(network, [member], self.cohort.seen.tokens, self.seed)
            self.network("cohort", "single, read-out", one, network)
            network = self.trainer.tokens(f"single-{member.name}", network, [one], share=0.5)
            self.network("cohort", "single, stage 1", one, network)

    def _newcomer(self, new: Member, blank: SharedNetwork, shared: SharedNetwork) -> None:
        tokens = self.cohort.seen.tokens
        for minutes in self.size.minutes:
            n = min(len(new.index), round(TRIALS_A_MINUTE * minutes))
            member, group = new.first(n), f"new subject, {minutes} min, {n} trials"
            (one,) = know(blank, [member], tokens, self.seed)
            self.ridge(group, RIVAL, member)
            self.bayes(group, "shared prior, Bayes", one, blank)
            self.network(group, "read-out (both, stacked)", one, blank)
            self.network(group, "shared network", one, shared)
            network = load(NAME, self.painter.device)
            (other,) = know(network, [member], tokens, self.seed)
            self.network(group, "shipped network, adapted", other, network)
            voxels, _ = train_embeddings(
                shared, one.voxels, one.reading, member.trials, tokens[member.index], EMBEDDING_EPOCHS, 1e-3,
                self.seed, self.trainer.progress,
            )  # fmt: skip
            self.network(group, "shared network, embeddings trained", replace(one, voxels=voxels), shared)
            alone = begin([member], self.cohort, self.seed, alone=True, **self.sizes)
            (own,) = know(alone, [member], tokens, self.seed)
            self.keep(self)
            alone = self.trainer.tokens(f"newcomer-alone-{minutes}", alone, [own], share=0.3)
            self.network(group, "single, stage 1", own, alone)

    def show(self, file: Path) -> None:
        """Write a sheet: the stimuli, then a row for each method, of the last subject it was tried on."""
        rows = [self.painter.truth[:SHOWN], *self.pictures.values()]
        write_picture(sheet(np.concatenate(rows), SHOWN, gap=2), file)

    def rows(self) -> list[dict[str, Any]]:
        """Return one record a method: means with 95 % intervals over pictures, and paired to its rival."""
        out = []
        for group, what in dict.fromkeys((g, w) for g, w, _ in self.scores):
            names = [n for g, w, n in self.scores if (g, w) == (group, what)]
            ours = _mean([self.scores[group, what, n] for n in names])
            home = group if (group, RIVAL, names[0]) in self.scores else "cohort"
            row: dict[str, Any] = {"group": group, "what": what, "subjects": len(names)}
            for key, values in ours.items():
                row[key] = _interval(metrics.bootstrap_interval(values))
            if all((home, RIVAL, n) in self.scores for n in names) and what != RIVAL:
                theirs = _mean([self.scores[home, RIVAL, n] for n in names])
                row |= {
                    f"{key} above ridge": _interval(metrics.paired_interval(ours[key], theirs[key]))
                    for key in ("two_way", "pixcorr", "top1")
                }
            out.append(row)
        return out


def _mean(found: list[Scores]) -> Scores:
    """Average over subjects, picture by picture."""
    keys = set.intersection(*(set(one) for one in found))
    return {k: np.mean([one[k] for one in found], 0) for k in found[0] if k in keys}


def _interval(found: tuple[float, float, float]) -> list[float]:
    return [round(float(v), 4) for v in found]
