"""Job behind ``brainlab brain encode``: what each voxel answers to pictures, and voxels grouped by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator, model_validator

from brainit.voxels.universal.config import PRESETS, EncoderConfig, parse_encoder
from lab.decoding.settings import overlay
from lab.errors import InputError, MissingDataError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Seed, Table, Words, line, record, setting

if TYPE_CHECKING:
    from brainit.subject import Subject
    from lab.decoding.encoder.people import People

FITTED = "encoder.safetensors"
TABLES = "embeddings.npz"


class Settings(contract.Settings):
    """Fit the universal voxel encoder: pictures to voxels, one network for all subjects.

    Writes each voxel's embedding, how well its responses to test pictures are predicted (as NIfTI, beside the
    noise ceiling), and voxels of all subjects in functional clusters, with anatomical and random ones as
    controls. With --start the encoder of another run stays as it is, only embeddings of these subjects are
    learned, and their voxels join that run's clusters. Under `accelerate launch --multi_gpu` several
    processes share the work.
    """

    dataset: str = setting("simulated", "name of the dataset (brainlab data list)")
    root: Path | None = setting(None, "folder of the dataset; default: its place in the user's cache")
    subjects: Words = setting((), "subjects, with commas between; default: all of the dataset")
    options: dict[str, str | int | float | bool] = setting(
        {}, "the dataset's own options (brainlab data info NAME)"
    )
    backbone: str = setting("encoder-64", "encoder-64, or a folder with DINOv2 in the form of transformers")
    preset: Literal["small", "published"] = setting("small", "starting point of the settings under encoder")
    encoder: EncoderConfig = setting(parse_encoder(), "the encoder: taps, sizes, training")
    start: Path | None = setting(None, "another run of this command, whose encoder new subjects join")
    clusters: int = setting(0, "clusters; 0: 32 under 5000 voxels a subject, else 128", ge=0, le=4096)
    covariance: Literal["full", "diag"] = setting("full", "of the clusters' Gaussians; diag is faster")
    seed: Seed = setting(0, "fixes initial weights, data order and clusters")
    device: Device = setting("auto", "where the networks run")
    out: Path = setting(Path("runs/encode"), "run folder; the same command goes on in it", short="-o")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("encoder", {}), dict):
            return values
        preset = values.get("preset", "small")
        if preset not in PRESETS:
            return values  # the field's own check names what is allowed
        base = {"preset": preset, **PRESETS[preset], "seed": values.get("seed", 0)}
        return {**values, "encoder": overlay(base, values.get("encoder", {}))}

    @field_validator("root", "start")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().resolve()

    def claim(self) -> dict[str, Any]:
        """Return what decides the result."""
        return self.model_dump(mode="json", exclude={"out", "device"})


class Result(contract.Result):
    """A row a subject: mean correlation over voxels beside the linear encoder's, share of the ceiling."""

    rows: list[dict[str, Any]]
    clusters: dict[str, Any]
    leak_line: str
    simulated: bool
    out: str
    report: str
    maps: list[str]
    note: str = ""
    warnings: tuple[str, ...] = ()

    def tables(self) -> list[Table]:
        """Return scores, then how full the clusters are."""
        said = {"subjects": "simulated" if self.simulated else "measured", "leaks": self.leak_line}
        said |= {"note": self.note} if self.note else {}
        sizes = [{"clusters": name, **found} for name, found in self.clusters.items()]
        odd = [line(f"warning: {one}") for one in self.warnings]
        return [Table([_shown(row) for row in self.rows]), Table(sizes), record(said), *odd]

    def files(self) -> dict[str, str]:
        """Return the run folder and the page."""
        return {"run": self.out, "report": self.report}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    def bounds(name: str) -> str:
        return f"{row[name]:.3f} [{row[name + '_low']:.3f}, {row[name + '_high']:.3f}]"

    share = "–" if row["share"] is None else f"{row['share']:.2f}"
    return {
        "subject": row["subject"],
        "voxels": row["voxels"],
        "r": bounds("r"),
        "linear encoder": bounds("r_linear"),
        "difference": bounds("r_minus_linear"),
        "share of ceiling": share,
    }


def dry_run(settings: Settings) -> Foreseen:
    """Check names, data and the encoder that is started from, and say what would be fitted."""
    _check(settings)
    if settings.dataset != "simulated":  # those may have to be made first
        _people(settings, Context())
    facts = {"would write": str(settings.out), "dataset": settings.dataset, "backbone": settings.backbone}
    return Foreseen(facts=facts | {"epochs": settings.encoder.epochs, "taps": list(settings.encoder.taps)})


def run(settings: Settings, context: Context) -> Result:
    """Fit, measure, group and write; a stopped run goes on after its last epoch.

    Raises
    ------
    InputError
        Unknown names, data without pictures, taps that the backbone lacks, a start of another backbone, or a
        folder of other settings.
    MissingDataError
        No backbone, or no run, where one was named.
    """
    from brainit.processes import Processes
    from lab.models.devices import choose_device
    from lab.runs.folder import Run
    from lab.runs.older import complete

    _check(settings)
    device = choose_device(settings.device)
    together = Processes.current(device)
    if not together.first:
        return _helped(settings, context, device)
    defaults = complete(Settings, {})
    Run.check(settings.out, settings.claim(), defaults)
    people = _people(settings, context)
    together.wait()  # the first process makes simulated subjects, the others read them
    from lab.jobs.brain.encoding import encode

    with Run.open(settings.out, settings.claim(), defaults) as folder:
        found = encode(settings, people, folder, device, context.progress)
    return Result(**found)


def _helped(settings: Settings, context: Context, device: str) -> Result:
    """Take a share of the fit; the first process measures and writes."""
    from brainit.processes import Processes
    from lab.jobs.brain.encoding import fit

    Processes.current(device).wait()
    people = _people(settings, context)
    fit(settings, people, settings.out, device, context.progress)
    note = "a share of the fit; the first process has the result"
    out, page = str(settings.out), str(settings.out / "report.html")
    simulated = people.subjects[0].simulated
    return Result(
        rows=[],
        clusters={},
        leak_line=people.leak_line,
        simulated=simulated,
        maps=[],
        note=note,
        out=out,
        report=page,
    )


def _people(settings: Settings, context: Context) -> People:
    from lab.decoding.encoder.people import open_people

    root = None if settings.root is None else str(settings.root)
    before = [] if settings.start is None else _before(settings.start, context)
    people = open_people(
        settings.dataset, root, settings.subjects, settings.options, context.progress, before or ()
    )
    if before is None:
        people = replace(people, leak_line=f"{people.leak_line}; what {settings.start} learned from is gone")
    voxels = sum(own.n_voxels for own in people.subjects)
    if settings.clusters > voxels // 2:
        raise InputError(
            f"--clusters {settings.clusters}: there are {voxels} voxels; allowed: up to {voxels // 2}, or 0"
        )
    return people


def _before(run: Path, context: Context) -> list[Subject] | None:
    """Return whom a run has learned from; None where its data are not there any more."""
    from lab.decoding.encoder.people import open_people
    from lab.runs.settings import read_settings

    known = read_settings(run / "config.yaml")
    try:
        given = (known["dataset"], known.get("root"), known.get("subjects") or (), known.get("options") or {})
        return open_people(*given, context.progress).subjects
    except (InputError, KeyError):
        return None


def _check(settings: Settings) -> None:
    from brainit import datasets
    from lab.decoding.encoder.measure import find_backbone
    from lab.jobs.checks import known

    twice = next((n for k, n in enumerate(settings.subjects) if n in settings.subjects[:k]), None)
    if twice is not None:
        raise InputError(f"--subjects: {twice!r} is given twice; leave one away")
    known("dataset", settings.dataset, datasets.list_datasets(), "brainlab data list")
    for option in settings.options:
        allowed = datasets.describe(settings.dataset)["options"]
        known(f"option of {settings.dataset}", option, allowed, f"brainlab data info {settings.dataset}")
    if settings.backbone != "encoder-64" and not Path(settings.backbone).expanduser().is_dir():
        raise MissingDataError(
            f"backbone {settings.backbone!r} is no folder; give encoder-64 or a folder with DINOv2 "
            "(config.json, model.safetensors)"
        )
    if settings.start is None:
        find_backbone(settings.backbone).check_taps(settings.encoder.taps)
        return
    for name in (FITTED, TABLES):
        if not (settings.start / name).is_file():
            raise MissingDataError(
                f"start: {settings.start / name} does not exist; give a finished run of brainlab brain encode"
            )
    if settings.start == settings.out.expanduser().resolve():
        raise InputError(f"start and out are both {settings.out}; choose another --out")
