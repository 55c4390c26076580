"""Training networks of a study: measured trials, and synthetic fMRI of pictures that nobody saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from brainit.network.shared import SharedNetwork
from brainit.processes import Processes
from lab.decoding.cohort import Size
from lab.decoding.cohort.subjects import Cohort, Known
from lab.progress import Progress
from lab.zoo import load, null_tokens
from lab.zoo.shared import DENOISER, training
from lab.zoo.train.denoiser import Conditioned
from lab.zoo.train.loop import Outcome, Prepare

REPEATS = 3


def trials(
    known: Sequence[Known],
    cohort: Cohort,
    network: SharedNetwork,
    external: bool,
    latents: bool,
    held: int = 0,
) -> Prepare:
    """Return what makes batches: measured trials of one subject and synthetic ones of external pictures.

    What the read-out says of a measured trial comes from a fit without it. Synthetic fMRI is what tuning
    predicts plus noise of the spread and the common directions found in the residuals, of 1 to `REPEATS`
    presentations. Trials of the first ``held`` pictures are left out.
    """
    seen = cohort.seen
    points = network.space.points(seen.tokens[cohort.external]) if external else None
    free = [torch.nonzero(one.member.index >= held)[:, 0] for one in known]

    @torch.no_grad()
    def prepare(index: torch.Tensor) -> tuple[Any, ...]:
        k = int(torch.randint(len(known), (1,)))
        one = known[k]
        half = len(index) // 2 if points is not None else len(index)
        rows = free[k][index[:half] % len(free[k])]
        x, shown = one.member.trials[rows], one.member.index[rows]
        if points is not None:
            tuning, voxels = one.reading.tuning, one.voxels
            other = index[half:] % len(points)
            common = torch.randn(len(other), len(tuning.power), device=x.device) * tuning.power.sqrt()
            noise = torch.randn(len(other), x.shape[1], device=x.device) + common @ tuning.common.T
            repeats = int(torch.randint(1, REPEATS + 1, (1,)))
            made = (points[other] - voxels.offset) @ tuning.weights + noise * (tuning.spread / repeats**0.5)
            x, shown = torch.cat([x, made]), torch.cat([shown, cohort.external[other]])
        read = x @ one.voxels.readout + one.voxels.offset
        read[:half] = one.reading.left_out[rows]
        base = network.space.tokens(read).unflatten(1, (network.config["n_tokens"], -1))
        return one.voxels, x, base, seen.tokens[shown], seen.latents[shown].float() if latents else None

    return prepare


@dataclass(frozen=True)
class Trainer:
    """Trains networks on one cohort, each resumable in ``folder``.

    Parameters
    ----------
    efforts : dict
        What each training came to, by its name.
    """

    cohort: Cohort
    size: Size
    folder: Path
    seed: int
    device: str
    progress: Progress
    efforts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def _effort(self, name: str) -> dict[str, Any]:
        def told(done: int, total: int, what: str) -> None:
            self.progress(done, total, f"{name}: {what}")

        minutes = self.size.seconds / 60 or None
        return {"seed": self.seed, "minutes": minutes, "progress": told}

    def tokens(
        self,
        name: str,
        network: SharedNetwork,
        known: Sequence[Known],
        external: bool = True,
        share: float = 1.0,
        held: int | None = None,
    ) -> SharedNetwork:
        """Train stage 1 in place with a ``share`` of the effort; ``held`` in place of the size's."""
        recipe = replace(
            training.TOKENS, steps=max(1, round(self.size.steps * share)), batch=self.size.batch, warmup=20
        )
        held = self.size.held if held is None else held
        prepare = trials(known, self.cohort, network, external, False, held)
        effort = self._effort(name)
        if effort["minutes"]:
            effort["minutes"] *= share
        state = self.folder / f"{name}.state.safetensors"
        self._done(name, training.train_tokens(network, prepare, 2**30, state, recipe, **effort))
        return network

    def pictures(
        self,
        name: str,
        network: SharedNetwork,
        known: Sequence[Known],
        learns: str,
    ) -> tuple[SharedNetwork, torch.nn.Module, torch.Tensor]:
        """Train stage 2 in place; return the network, and the denoiser with its null condition."""
        conditioned = Conditioned(load(DENOISER, self.device), null_tokens(DENOISER)).to(self.device)
        painted = training.Painted(network, conditioned, learns)
        recipe = replace(
            training.PICTURES, steps=self.size.painted_steps, batch=max(8, self.size.batch // 2), warmup=5
        )
        prepare = trials(known, self.cohort, network, True, True, self.size.held)
        state = self.folder / f"{name}.state.safetensors"
        self._done(
            name, training.train_pictures(painted, prepare, 2**30, state, recipe, **self._effort(name))
        )
        return network, conditioned.denoiser.eval(), conditioned.null.detach()

    def forget(self, names: Iterable[str] | None = None) -> None:
        """Remove the states of finished trainings, all or these; call it when what they led to is kept."""
        if Processes.current(self.device).first:
            for name in self.efforts if names is None else names:
                (self.folder / f"{name}.state.safetensors").unlink(missing_ok=True)

    def _done(self, name: str, outcome: Outcome) -> None:
        found = asdict(outcome)
        self.efforts[name] = {k: found[k] for k in ("steps", "batch")} | {
            "seconds": round(outcome.seconds, 1),
            "loss": round(outcome.final_loss, 4),
        }
