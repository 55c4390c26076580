"""A trained run that is only read: its settings, its network, and what it has worked out already."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError, MissingDataError
from lab.runs.older import open_settings
from lab.runs.settings import read_settings
from lab.runs.steps import StepCache

if TYPE_CHECKING:
    from brainit.training.adapting import AdaptedSubject
    from brainit.training.decoder import BrainDecoder
    from lab.decoding.conditions import Step

_ENOUGH = ("predict", "structural")
"""Steps that stand for the network, where its weights lie elsewhere (``--checkpoints``)."""

_SHOWN = ("dataset", "subject", "denoiser", "recipe", "structure", "strength", "steps", "guidance", "seed")


@dataclass(frozen=True)
class TrainedRun:
    """What ``brainlab brain train`` or ``brain reconstruct`` left behind.

    Parameters
    ----------
    path : Path
    config : ReconstructConfig
        With the dataset's place as it is now.
    lay : str, optional
        Where the dataset lay when the run was made.
    """

    path: Path
    config: ReconstructConfig
    lay: str | None = None

    @classmethod
    def open(cls, path: Path, root: Path | None = None) -> TrainedRun:
        """Open a run folder for reading.

        Parameters
        ----------
        path : Path
        root : Path, optional
            Where the run's dataset lies now; default where it lay.

        Raises
        ------
        InputError
            It is not a run folder, has settings of another version, or decodes categories.
        MissingDataError
            It was never trained.
        """
        if not (path / "config.yaml").is_file():
            raise InputError(
                f"{path} is not a run folder (it has no config.yaml); give one that brainlab brain "
                "reconstruct wrote"
            )
        if "brain" not in read_settings(path / "config.yaml"):
            raise InputError(
                f"{path} is a folder of another command; give one that brainlab brain reconstruct wrote"
            )
        config = open_settings(ReconstructConfig, path / "config.yaml")
        now = {} if root is None else {"root": str(root.expanduser().resolve())}
        run = cls(path, config.model_copy(update=now), config.root)
        if any(run._steps.folder.glob("fold.*.json")):
            raise InputError(
                f"{path} decodes categories: without stimuli there are no pictures that bits could change; "
                "give a run with pictures"
            )
        ready = all((run._steps.folder / f"{name}.json").is_file() for name in _ENOUGH)
        if not ready and not run._weights.is_file():
            raise MissingDataError(
                f"{path} was never trained: it has no {run._network.name}/{run._weights.name}; run brainlab "
                f"brain reconstruct --config {path / 'config.yaml'} --out {path} first"
            )
        return run

    def __repr__(self) -> str:
        config = self.config
        return f"TrainedRun({self.path}: {config.dataset} through {config.denoiser}, {config.recipe})"

    def _repr_html_(self) -> str:
        from html import escape

        facts = {"run": self.path, **{k: getattr(self.config, k) for k in _SHOWN}}
        cells = [(k, escape(str(v))) for k, v in facts.items() if v is not None]
        rows = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in cells)
        return f"<table>{rows}</table>"

    @cached_property
    def _steps(self) -> StepCache:
        return StepCache(self.path / "steps")

    @property
    def _network(self) -> Path:
        """The run's own network, or the one that all runs of a demo share beside them."""
        mine, shared = self.path / "checkpoints" / "brainit", self.path.parent / "checkpoints"
        file = "decoder.safetensors"
        return shared if not (mine / file).is_file() and (shared / file).is_file() else mine

    @property
    def _weights(self) -> Path:
        adapted = self.config.network == "shared"
        return self._network / ("adapted.safetensors" if adapted else "decoder.safetensors")

    def leaks(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``leak`` and ``leak_line`` as the run found them, over all subjects it was trained on.

        ``about`` is what is known of the one subject, for a run of before this was kept.
        """
        file = self.path / "subject.json"
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = {}
        except ValueError as error:
            raise InputError(f"{file} is damaged ({error}); run brainlab brain reconstruct again") from None
        found = known if "leak" in known and "leak_line" in known else about
        return {"leak": found["leak"], "leak_line": found["leak_line"]}

    def network(self) -> BrainDecoder | AdaptedSubject:
        """Read the trained network; nothing is trained.

        Raises
        ------
        MissingDataError
            Its weights lie in another folder and are needed.
        """
        from brainit.training.decoder import BrainDecoder

        if not self._weights.is_file():
            raise MissingDataError(
                f"{self.path} was stopped, and its network lies elsewhere (--checkpoints): run the same "
                "brainlab brain reconstruct again, then this"
            )
        if self.config.network == "shared":
            from brainit.training.adapting import AdaptedSubject
            from lab.decoding.cohort.adapted import network

            return AdaptedSubject.load(self._network, network())
        return BrainDecoder.load(self._network)

    def step(self, compute_in: Step) -> Step:
        """Return a ``step(name, compute)`` that looks here first, then in another run.

        Pictures of full precision count only if the decoder's weights are still those they were drawn with.
        """
        from lab.decoding.recipes import RIDGE_KEY, weights_of

        full = self._steps.load("ledger-full") or {}
        same = full.get("weights") == weights_of(self.config.denoiser)

        def step(name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
            drawn = name.startswith(("ledger-", "pictures-"))
            full_precision = name.split("-", 1)[-1].startswith(("full", RIDGE_KEY))
            found = self._steps.load(name) if not drawn or (same and full_precision) else None
            return compute_in(name, compute) if found is None else found

        return step
