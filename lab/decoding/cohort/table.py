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

from brainit.voxels.ridge import fit_ridge
from lab.decoding.cohort import newcomer
from lab.decoding.cohort.bounds import ENDLESS, NOISELESS, bound
from lab.decoding.cohort.choice import LeftOut
from lab.decoding.cohort.ground import SHARED, Ground
from lab.decoding.cohort.methods import SHOWN, Methods, Said
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
from lab.zoo.io import save_weights
from lab.zoo.shared.painting import Painter, Scores

GUIDANCE, STRENGTH = 3.0, 0.7


@dataclass
class Study(Methods):
    """Does steps whose scores are missing; what the board holds is neither trained for nor painted again."""

    keep: Callable[[], Any] = lambda: None

    def __post_init__(self) -> None:
        super().__post_init__()
        # low and high noise ceilings alike
        some = np.linspace(0, len(self.known) - 1, min(self.size.shown, len(self.known))).round()
        self.shown = [self.known[int(k)] for k in some]
        self.ends = [self.shown[0], self.shown[-1]][: len(self.shown)]
        self.steps = self._steps()

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
            self.trainer.forget()

    def do(self, name: str) -> None:
        """Do one step; states of its trainings stay until its scores are kept."""
        (step,) = (s for s in self.steps if s.name == name)
        torch.manual_seed(self.seed)  # the same whoever does it, and after whatever
        step.work()

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

    def _steps(self) -> list[Step]:
        shown = [one.member.name for one in self.shown]
        ends = [one.member.name for one in self.ends]
        learns = ("frozen", "lora" if self.painter.device == "cpu" else "whole")

        def rows(group: str, whats: Sequence[str], names: Sequence[str]) -> tuple[tuple[str, str, str], ...]:
            return tuple((group, what, name) for what in whats for name in names)

        steps = [
            Step(
                "read-outs", rows("cohort", (RIVAL, BAYES, READ_OUT, SHIPPED), shown), self._read_outs, long=6
            ),
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
        self.add("cohort", RIVAL, [self.ridge(one) for one in self.shown])
        self.add("cohort", BAYES, [self.bayes(one, self.blank) for one in self.shown])
        self.add("cohort", READ_OUT, [self.network(one, self.blank) for one in self.shown])
        self.shipped("cohort", [one.member for one in self.shown])

    def _stage_1(self) -> None:
        network = self.trainer.tokens(FUNCTIONAL, deepcopy(self.blank), self.known)
        save_weights(network, self.trainer.folder / SHARED)
        shared = self.shared  # as every later step reads it
        self.add("cohort", STAGE_1, [self.network(one, shared) for one in self.shown])

    def _clusters(self, kind: str) -> None:
        other = reclustered(self.blank, self.known, kind, self.seed)
        network = self.trainer.tokens(kind, deepcopy(self.blank), other)
        names = {one.member.name for one in self.shown}
        self.add("clusters", kind, [self.network(one, network) for one in other if one.member.name in names])

    def _no_external(self) -> None:
        network = self.trainer.tokens("no-external", deepcopy(self.blank), self.known, external=False)
        self.add("external", "no external pictures", [self.network(one, network) for one in self.shown])

    def _stage_2(self, learns: str, what: str) -> None:
        found = self.trainer.pictures(f"stage-2-{learns}", self.shared, self.known, learns)
        network, denoiser, null = found
        said = [self.network(one, network) for one in self.shown]
        self.add("cohort", what, said, decoder=(denoiser, null))

    def _branches(self) -> None:
        images, shared = self.cohort.seen.images, self.shared
        said = [self.network(one, shared) for one in self.ends]
        guidance = self.add("branches", "tokens alone", said)
        for one, own in zip(self.ends, said, strict=True):
            pixels = images[one.member.index.cpu()].flatten(1).numpy().astype(np.float32) / 255
            fitted = fit_ridge(one.member.trials.cpu().numpy(), pixels, device=self.painter.device)
            blur = fitted.predict(one.member.test.cpu().numpy()).clip(0, 1).astype(np.float32)
            start = torch.from_numpy(blur).view(-1, 3, 64, 64).to(self.painter.device)
            scores = self.painter.score(start)
            self.board.scores["branches", "structure alone", one.member.name] = scores
            steps = max(1, round(self.size.sampling * STRENGTH))
            how = {"start": start, "strength": STRENGTH, "steps": steps}
            self.add("branches", "both", [own], guidance=guidance, **how)

    def _single(self, one: Known) -> None:
        member = one.member
        network = begin([member], self.cohort, self.seed, alone=True, **self.ground.sizes)
        (own,) = know(network, [member], self.cohort.seen.tokens, self.seed)
        self.add("cohort", "single, read-out", [self.network(own, network)])
        network = self.trainer.tokens(f"single-{member.name}", network, [own])
        self.add("cohort", SINGLE, [self.network(own, network)])

    def _true(self) -> None:
        tokens = self.cohort.seen.tokens
        nothing = LeftOut(tokens[:0], self.cohort.tested[:0])
        self.add(
            "bound", "true tokens", [Said(self.new.name, tokens[self.cohort.tested], nothing)], None, GUIDANCE
        )

    def _bound(self, member: Member) -> None:
        nothing = LeftOut(self.cohort.seen.tokens[:0], self.cohort.tested[:0])
        for what in (NOISELESS, ENDLESS):
            said = Said(member.name, bound(what, member, self.cohort), nothing)
            self.add(_bounds(member), what, [said], guidance=GUIDANCE)

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
    return Study(ground, painter, trainer, board)


def _bounds(member: Member) -> str:
    return f"bound, ceiling {member.ceiling:.1f}"
