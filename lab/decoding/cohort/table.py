"""The methods of a study: each on the same test trials through the same decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainit.network.shared import SharedNetwork
from brainit.voxels.ridge import fit_ridge
from lab.decoding.cohort import newcomer
from lab.decoding.cohort.bounds import ENDLESS, NOISELESS, bound
from lab.decoding.cohort.ground import SHARED, Ground, open_network
from lab.decoding.cohort.scoreboard import (
    BAYES,
    READ_OUT,
    RIVAL,
    SHIPPED,
    SINGLE,
    STAGE_1,
    Method,
    Scoreboard,
)
from lab.decoding.cohort.steps import FUNCTIONAL, Step
from lab.decoding.cohort.subjects import Known, Member, begin, know, reclustered
from lab.decoding.cohort.training import Trainer
from lab.images import sheet, write_picture
from lab.progress import Progress
from lab.zoo import load, null_tokens
from lab.zoo.io import save_weights
from lab.zoo.shared import DENOISER, NAME
from lab.zoo.shared.painting import Painter, Scores

GUIDANCE, STRENGTH = 3.0, 0.7
SHOWN = 10


@dataclass
class Study:
    """Does steps whose scores are missing; what the board holds is neither trained for nor painted again."""

    ground: Ground
    painter: Painter
    trainer: Trainer
    board: Scoreboard
    keep: Callable[[], Any]

    def __post_init__(self) -> None:
        self.size, self.seed, self.cohort = self.ground.size, self.ground.seed, self.ground.cohort
        self.denoiser = load(DENOISER, self.painter.device)
        self.null = null_tokens(DENOISER)
        self.blank, self.known, self.new = self.ground.blank, self.ground.known, self.ground.new
        # low and high noise ceilings alike
        some = np.linspace(0, len(self.known) - 1, min(self.size.shown, len(self.known))).round()
        self.shown = [self.known[int(k)] for k in some]
        self.ends = [self.shown[0], self.shown[-1]][: len(self.shown)]
        self.steps = self._steps()

    @property
    def shared(self) -> SharedNetwork:
        """The network of all subjects but the newcomer after stage 1."""
        return open_network(self.trainer.folder / SHARED, self.cohort).eval()

    def left(self) -> list[Step]:
        """Return the steps that are to be done, in the order of the table."""
        missing = {s.name for s in self.steps if not s.done(self.board.scores)}
        wanted = any(s.needs == FUNCTIONAL for s in self.steps if s.name in missing)
        if wanted and not (self.trainer.folder / SHARED).is_file():
            missing.add(FUNCTIONAL)
        return [s for s in self.steps if s.name in missing]

    def run(self) -> None:
        """Do all that is left, one after another."""
        for step in self.left():
            self.do(step.name)
            self.keep()

    def do(self, name: str) -> None:
        """Do one step; what was trained for it alone is not kept."""
        (step,) = (s for s in self.steps if s.name == name)
        torch.manual_seed(self.seed)  # the same whoever does it, and after whatever
        step.work()
        self.trainer.forget()

    def give(self) -> tuple[dict[Any, Any], dict[Any, Any], dict[str, Any]]:
        """Hand over scores, pictures and efforts since the last time."""
        found = dict(self.board.scores), dict(self.board.pictures), dict(self.trainer.efforts)
        for held in (self.board.scores, self.board.pictures, self.trainer.efforts):
            held.clear()
        return found

    def take(self, scores: dict[Any, Scores], pictures: dict[Method, np.ndarray], efforts: Any) -> None:
        """Take over what another process made."""
        self.board.scores.update(scores)
        self.board.pictures.update(pictures)
        self.trainer.efforts.update(efforts)

    def settle(self) -> None:
        """Put rows into the order of the table; repeat beside bounds what was reached there."""
        made = list(dict.fromkeys((group, what) for step in self.steps for group, what, _ in step.makes))
        most = newcomer.group(self, self.size.minutes[-1])[0]
        for one, home in ((self.ends[0].member, "cohort"), (self.new, most)):
            for what in (RIVAL, SHIPPED, STAGE_1 if home == "cohort" else newcomer.SHARED):
                made.append((_bounds(one), what))
                if self.board.has(home, what, one.name):
                    self.board.scores[_bounds(one), what, one.name] = self.board.scores[home, what, one.name]
        self.board.sort(made)

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

    def ridge(self, group: str, member: Member) -> None:
        """Add ridge from voxels to tokens, its penalty by leave-one-out."""
        goals = self.cohort.seen.tokens[member.index].cpu().numpy()
        fitted = fit_ridge(member.trials.cpu().numpy(), goals, device=self.painter.device)
        guess = torch.from_numpy(fitted.predict(member.test.cpu().numpy()).astype(np.float32))
        self.add(group, RIVAL, member, guess.to(member.test))

    def bayes(self, group: str, one: Known, network: SharedNetwork) -> None:
        """Add Bayes decoding with the prior of others."""
        found = network.space.tokens(one.member.test @ one.reading.bayes + one.reading.offset)
        self.add(group, BAYES, one.member, found)

    @torch.no_grad()
    def network(self, group: str, what: str, one: Known, network: SharedNetwork, **how: Any) -> None:
        """Add a network."""
        tokens = network.eval()(one.member.test, one.voxels).flatten(1)
        self.add(group, what, one.member, tokens, **how)

    def shipped(self, group: str, members: Sequence[Member]) -> None:
        """Add the network of the zoo, which learned from other people, adapted in closed form."""
        network = load(NAME, self.painter.device)
        for one in know(network, members, self.cohort.seen.tokens, self.seed):
            self.network(group, SHIPPED, one, network)

    def _steps(self) -> list[Step]:
        shown = [one.member.name for one in self.shown]
        ends = [one.member.name for one in self.ends]
        learns = ("frozen", "lora" if self.painter.device == "cpu" else "whole")

        def rows(group: str, whats: Sequence[str], names: Sequence[str]) -> tuple[tuple[str, str, str], ...]:
            return tuple((group, what, name) for what in whats for name in names)

        steps = [
            Step("read-outs", rows("cohort", (RIVAL, BAYES, READ_OUT, SHIPPED), shown), self._read_outs),
            Step(FUNCTIONAL, rows("cohort", (STAGE_1,), shown), self._stage_1, long=9),
        ]
        for one in self.ends:
            made = rows("cohort", ("single, read-out", SINGLE), [one.member.name])
            steps.append(Step(f"single-{one.member.name}", made, partial(self._single, one), long=5))
        for how in learns:
            what = f"shared, stage 2, denoiser {'by LoRA' if how == 'lora' else how}"
            work = partial(self._stage_2, how, what)
            steps.append(Step(f"stage-2-{how}", rows("cohort", (what,), shown), work, FUNCTIONAL, 4))
        for kind in ("anatomical", "random"):
            made = rows("clusters", (kind,), shown)
            steps.append(Step(kind, made, partial(self._clusters, kind), long=7))
        made = rows("external", ("no external pictures",), shown)
        steps.append(Step("no-external", made, self._no_external, long=8))
        made = rows("branches", ("structure alone", "tokens alone", "both"), ends)
        steps.append(Step("branches", made, self._branches, FUNCTIONAL, 2))
        steps += newcomer.steps(self)
        steps.append(
            Step("true-tokens", rows("bound", ("true tokens",), [self.new.name]), self._true, long=0)
        )
        for member in (self.ends[0].member, self.new):
            made = rows(_bounds(member), (NOISELESS, ENDLESS), [member.name])
            steps.append(Step(f"bounds-{member.name}", made, partial(self._bound, member), long=3))
        return steps

    def _read_outs(self) -> None:
        for one in self.shown:
            self.ridge("cohort", one.member)
            self.bayes("cohort", one, self.blank)
            self.network("cohort", READ_OUT, one, self.blank)
        self.shipped("cohort", [one.member for one in self.shown])

    def _stage_1(self) -> None:
        network = self.trainer.tokens(FUNCTIONAL, deepcopy(self.blank), self.known)
        save_weights(network, self.trainer.folder / SHARED)
        shared = self.shared  # as every later step reads it
        for one in self.shown:
            self.network("cohort", STAGE_1, one, shared)

    def _clusters(self, kind: str) -> None:
        other = reclustered(self.blank, self.known, kind, self.seed)
        network = self.trainer.tokens(kind, deepcopy(self.blank), other)
        names = [one.member.name for one in self.shown]
        for one in other:
            if one.member.name in names:
                self.network("clusters", kind, one, network)

    def _no_external(self) -> None:
        network = self.trainer.tokens("no-external", deepcopy(self.blank), self.known, external=False)
        for one in self.shown:
            self.network("external", "no external pictures", one, network)

    def _stage_2(self, learns: str, what: str) -> None:
        found = self.trainer.pictures(f"stage-2-{learns}", self.shared, self.known, learns)
        network, denoiser, null = found
        for one in self.shown:
            self.network("cohort", what, one, network, decoder=(denoiser, null))

    def _branches(self) -> None:
        images, shared = self.cohort.seen.images, self.shared
        for one in self.ends:
            pixels = images[one.member.index.cpu()].flatten(1).numpy().astype(np.float32) / 255
            fitted = fit_ridge(one.member.trials.cpu().numpy(), pixels, device=self.painter.device)
            blur = fitted.predict(one.member.test.cpu().numpy()).clip(0, 1).astype(np.float32)
            start = torch.from_numpy(blur).view(-1, 3, 64, 64).to(self.painter.device)
            scores = self.painter.score(start)
            self.board.scores["branches", "structure alone", one.member.name] = scores
            self.network("branches", "tokens alone", one, shared)
            steps = max(1, round(self.size.sampling * STRENGTH))
            how = {"start": start, "strength": STRENGTH, "steps": steps}
            self.network("branches", "both", one, shared, **how)

    def _single(self, one: Known) -> None:
        member = one.member
        network = begin([member], self.cohort, self.seed, alone=True, **self.ground.sizes)
        (own,) = know(network, [member], self.cohort.seen.tokens, self.seed)
        self.network("cohort", "single, read-out", own, network)
        network = self.trainer.tokens(f"single-{member.name}", network, [own])
        self.network("cohort", SINGLE, own, network)

    def _true(self) -> None:
        self.add("bound", "true tokens", self.new, self.cohort.seen.tokens[self.cohort.tested])

    def _bound(self, member: Member) -> None:
        for what in (NOISELESS, ENDLESS):
            self.add(_bounds(member), what, member, bound(what, member, self.cohort))

    def show(self, file: Path) -> None:
        """Write a sheet: the stimuli, then a row for each method, of the last subject it was tried on."""
        rows = [
            self.painter.truth[:SHOWN],
            *(p.astype(np.float32) / 255 for p in self.board.pictures.values()),
        ]
        write_picture(sheet(np.concatenate(rows), SHOWN, gap=2), file)


def at_work(ground: Ground, folder: Path, device: str, board: Scoreboard, progress: Progress) -> Study:
    """Return a study on laid ground; ``folder`` keeps its networks."""
    images = ground.cohort.seen.images[ground.cohort.tested.cpu()]
    painter = Painter.of(images, ground.seed, device)
    trainer = Trainer(ground.cohort, ground.size, folder, ground.seed, device, progress)
    return Study(ground, painter, trainer, board, lambda: None)


def _bounds(member: Member) -> str:
    return f"bound, ceiling {member.ceiling:.1f}"
