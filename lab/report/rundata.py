"""What lies in a run folder, read once; a missing or broken optional file becomes a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainit.io import fingerprint
from lab.figures import Provenance
from lab.runs.folder import config_hash
from lab.runs.metrics import read_metrics

_OPTIONAL = (
    "config.yaml",
    "plan.json",
    "ledger.json",
    "subject.json",
    "arrays.npz",
    "versions.json",
    "log.jsonl",
)


@dataclass(frozen=True)
class RunData:
    """Contents of a run folder.

    Parameters
    ----------
    path : Path
    metrics : mapping
        ``metrics.json``, the only file that must be there.
    config, plan, ledger, subject, versions : mapping
        Empty where the file is missing.
    arrays : mapping of str to array
        ``stimulus, structural, fp, quantized, ridge, mean_image`` (n, H, W) or (n, H, W, 3);
        ``score_pixcorr`` (n,); ``xyz`` (v, 3); ``cluster`` (v,); ``noise_ceiling`` (v,); any may be missing.
    log : list of dict
        Events of ``log.jsonl``.
    problems : list of str
        One sentence a file that is missing or cannot be read.
    """

    path: Path
    metrics: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    ledger: Mapping[str, Any] = field(default_factory=dict)
    subject: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Dataset and subject."""
        return (
            " ".join(str(self.metrics[k]) for k in ("dataset", "subject") if self.metrics.get(k))
            or self.path.name
        )

    @property
    def simulated(self) -> bool:
        """Whether the subject is simulated."""
        return bool(self.metrics.get("simulated"))

    @property
    def categories(self) -> bool:
        """Whether only categories were decoded, for want of pictures."""
        return self.metrics.get("pictures") == "none"

    @property
    def seed(self) -> int:
        """Seed of the run, 0 where none is recorded."""
        return int(self.metrics.get("seed") or 0)

    @property
    def hash(self) -> str:
        """Hash of the settings."""
        return config_hash(self.config) if self.config else ""

    @property
    def plain(self) -> bool:
        """Whether the decoder ran in full precision alone."""
        return self.metrics.get("recipe") == "none"

    @property
    def leaks(self) -> str:
        """What the leak check found, in one line; it stands wherever a score of this run stands."""
        line = self.metrics.get("leaks") or self.subject.get("leak_line")
        count = self.metrics.get("leak_test_in_train")
        if line or self.categories:
            return str(line or "")
        if count is None:
            return "leak check: none is recorded, so these scores are unchecked"
        return f"leak check: {count} of {self.metrics.get('n_test', '?')} test pictures in training"

    @property
    def leaked(self) -> int:
        """Test pictures that occur in training, 0 where none is recorded."""
        return int(self.metrics.get("leak_test_in_train") or 0)

    @property
    def tested(self) -> tuple[object, ...]:
        """What the scores are over: equal for two runs of the same test pictures, in whatever order."""
        pictures = sorted(fingerprint("", [one]) for one in self.arrays.get("stimulus", ()))
        trials = sorted(
            zip(*(self.arrays[k].tolist() for k in ("run", "label") if k in self.arrays), strict=True)
        )
        return (self.metrics.get("dataset"), self.metrics.get("n_test"), *pictures, *trials)

    def provenance(self, samples: str | None = None) -> Provenance:
        """Where this run's numbers come from."""
        if samples is None:
            what = "trials" if self.categories else "test pictures"
            samples = f"{self.metrics.get('n_test', '?')} {what}"
        return Provenance(self.name, samples, self.seed, self.hash, self.simulated, leaks=self.leaks)


def read_run(path: Path | str) -> RunData:
    """Read a run folder.

    Raises
    ------
    MissingDataError
        If there is no ``metrics.json``.
    InputError
        If ``metrics.json`` cannot be read.
    """
    path = Path(path)
    metrics = read_metrics(path)
    problems: list[str] = []
    nothing_drawn = ("plan.json", "ledger.json") if metrics.get("pictures") == "none" else ()
    found: dict[str, Any] = {
        name: None if name in nothing_drawn else _read(path / name, problems) for name in _OPTIONAL
    }

    def mapping(name: str) -> Mapping[str, Any]:
        if found[name] is not None and not isinstance(found[name], Mapping):
            problems.append(f"{name} holds a {type(found[name]).__name__} instead of names and values.")
        return found[name] if isinstance(found[name], Mapping) else {}

    return RunData(
        path,
        metrics,
        config=mapping("config.yaml"),
        plan=mapping("plan.json"),
        ledger=mapping("ledger.json"),
        subject=mapping("subject.json"),
        versions=mapping("versions.json"),
        arrays=mapping("arrays.npz"),
        log=found["log.jsonl"] or [],
        problems=problems,
    )


def _read(file: Path, problems: list[str]) -> Any:
    if not file.is_file():
        problems.append(f"{file.name} is not in this run folder; what it would show is left out.")
        return None
    try:
        return _READERS[file.suffix](file)
    except (
        Exception
    ) as error:  # a broken side file must not cost the whole report; it is named on the page instead
        problems.append(
            f"{file.name} cannot be read ({type(error).__name__}); what it would show is left out."
        )
        return None


def _yaml(file: Path) -> Any:
    import yaml

    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _npz(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def _jsonl(file: Path) -> list[dict[str, Any]]:
    events = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue  # half a line of a killed process
    return [e for e in events if isinstance(e, dict)]


_READERS: dict[str, Callable[[Path], Any]] = {
    ".yaml": _yaml,
    ".json": lambda file: json.loads(file.read_text(encoding="utf-8")),
    ".npz": _npz,
    ".jsonl": _jsonl,
}
