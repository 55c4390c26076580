"""Job behind ``brainlab brain study``: what the shared network is worth, in one table and one figure."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Seed, Table, setting
from lab.models.devices import choose_device
from lab.models.preflight import check_loose_folder, need

SCORES = ("tokens", "two_way", "top1", "pixcorr")
DIFFERENCES = ("two_way above ridge", "top1 above ridge", "pixcorr above ridge")
VERSION = 5
"""Of what a folder holds."""
MOST = 6
"""Processes on a GPU where nothing is said."""
OFF_SCALE = ("structure alone", "both branches above structure alone")
"""In the table alone: beside a blur, all other differences would be a line."""
_THROUGH = ("dit-64", "autoencoder-64", "encoder-64", "shared-64")
"""Shipped models that scores come through."""


class Settings(contract.Settings):
    """Compare shared and single networks, stages, clusters, branches, external pictures and minutes.

    Simulated subjects are scanned in memory, networks are trained on all but the last of them, and every
    method's tokens go through the same decoder: one sample a picture, one noise seed, guidance 3 unless
    pictures that a method has not learned from clearly want another. The cortex reads the network that also
    scores (favourable): the table compares methods, not brains. cohort-small takes minutes on a CPU with the
    pictures that ship; cohort needs a GPU and the training pictures. A step that is done is kept.
    """

    preset: Literal["cohort-small", "cohort"] = setting("cohort-small", "size of the study")
    out: Path = setting(Path("runs/study"), "folder of table and figure; a stopped study goes on", short="-o")
    data: Path | None = setting(None, "folder with the training and held-out pictures (preset cohort)")
    seconds: float | None = setting(
        None, "budget of each training instead of the preset's", unit="seconds", gt=0
    )
    n_test: int | None = setting(None, "test pictures instead of the preset's", ge=8, le=300)
    jobs: int | None = setting(
        None, f"processes that train side by side; default 1 on a CPU, up to {MOST} on a GPU", ge=1, le=64
    )
    seed: Seed = setting(0, "fixes subjects, noise and initial weights")
    device: Device = setting("auto", "where the networks run")

    def command(self) -> str:
        """Return the command that gives these numbers, whatever the folders and the number of processes."""
        words = ["brainlab", "brain", "study", "--preset", self.preset]
        words += ["--data", "DATA"] if self.preset == "cohort" else []
        for flag, value in (("--seconds", self.seconds), ("--n-test", self.n_test), ("--seed", self.seed)):
            words += [flag, f"{value:g}"] if value else []
        return shlex.join([*words, "--device", self.device])


class Result(contract.Result):
    """A row for each method; files of the table and the figure."""

    rows: list[dict[str, Any]]
    contrasts: list[dict[str, Any]]
    table: str
    figure: str

    def tables(self) -> list[Table]:
        """Return means with the interval of what they are above ridge, then what is compared with what."""
        return [Table([_short(row) for row in self.rows]), Table([_words(row) for row in self.contrasts])]

    def files(self) -> dict[str, str]:
        """Return table and figure."""
        return {"table": self.table, "figure": self.figure}


def run(settings: Settings, context: Context) -> Result:
    """Run the study, or go on with it.

    Raises
    ------
    InputError
        The folder holds another study, or pictures are missing.
    """
    out, facts = settings.out, _check(settings)
    with _held(out):
        facts = _check(settings)  # nobody else came in between
        rows_file = out / "rows.json"
        found = json.loads(rows_file.read_text(encoding="utf-8")) if rows_file.is_file() else None
        if found is None or not found["finished"]:
            found = _measure(settings, facts, context)
        _draw(out, found)
    return Result(
        rows=found["rows"],
        contrasts=found["contrasts"],
        table=str(out / "table.md"),
        figure=str(out / "figure.png"),
    )


def dry_run(settings: Settings) -> Foreseen:
    """Check names and folders; say how large the study is."""
    return Foreseen(facts={"would study": settings.preset, "out": str(settings.out), **_check(settings)})


def _check(settings: Settings) -> dict[str, Any]:
    from dataclasses import asdict, replace

    from lab import zoo
    from lab.decoding.cohort import SIZES
    from lab.zoo import data as pictures
    from lab.zoo.io import mark

    check_loose_folder(settings.out)
    size = SIZES[settings.preset]
    if settings.seconds is not None:
        size = replace(size, seconds=settings.seconds)
    if settings.n_test is not None:
        size = replace(size, n_test=settings.n_test)
    if settings.preset == "cohort":
        need("pyarrow")
        if settings.data is None or not settings.data.is_dir():
            raise InputError(
                f"--data is {settings.data}; preset cohort wants the folder with the training pictures"
            )
        pictures.check(settings.data)
    facts = {"size": asdict(size), "seed": settings.seed, "preset": settings.preset, "version": VERSION}
    facts["weights"] = mark(*(zoo.weight_file(name) for name in _THROUGH))
    claimed = settings.out / "study.json"
    if claimed.is_file():
        there = json.loads(claimed.read_text(encoding="utf-8"))
        if there.get("version") == VERSION and there.get("weights") != facts["weights"]:
            if "weights" not in there:
                raise InputError(
                    f"{settings.out} holds a study of an earlier version, which did not write down its "
                    "weights: give another --out"
                )
            raise InputError(
                f"{settings.out} holds a study through other weights of {', '.join(_THROUGH)} "
                f"({there['weights']}; now {facts['weights']}): put those back, or give another --out"
            )
        if there != json.loads(json.dumps(facts)):
            raise InputError(
                f"{settings.out} holds a study of other settings; give another --out or remove it"
            )
    elif settings.out.is_dir() and (strange := sorted(p.name for p in settings.out.glob("[!.]*"))):
        raise InputError(
            f"{settings.out} holds other files ({strange[0]}) and no study; choose another --out"
        )
    return facts


def _measure(settings: Settings, facts: dict[str, Any], context: Context) -> dict[str, Any]:
    import torch

    from brainit.io import fingerprint
    from brainit.processes import Processes
    from kernels.checkout import commit
    from lab.decoding.cohort import Size, crew
    from lab.decoding.cohort.ground import lay
    from lab.decoding.cohort.scoreboard import Scoreboard
    from lab.decoding.cohort.subjects import gather
    from lab.decoding.cohort.table import at_work
    from lab.files import write_json

    out, device = settings.out, choose_device(settings.device)
    together = Processes.current(device)
    device, jobs = together.device(device), _jobs(settings, device, together.size)
    context.progress(0, 1, "pictures of the cohort")
    if together.first:
        write_json(out / "study.json", facts)
    size = Size(**facts["size"])
    data = settings.data if settings.preset == "cohort" else None
    cohort = gather(size, data, settings.seed, device, context.progress)
    _claim_pictures(out, fingerprint("pictures", [cohort.seen.images.numpy()])[:16])
    together.wait()
    before = json.loads((out / "rows.json").read_text("utf-8")) if (out / "rows.json").is_file() else {}
    ground = lay(size, cohort, settings.seed, out / "training", together)
    board = Scoreboard.open(out / "scores.safetensors")
    study = at_work(ground, out / "training", device, board, context.progress)
    study.trainer.efforts.update(before.get("trainings", {}))
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    about = {
        "device": _joined(before.get("about", {}).get("device"), name),
        "commit": _joined(before.get("about", {}).get("commit"), commit()),
        "command": settings.command(),
        "preset": settings.preset,
        "seed": settings.seed,
        "n_test": size.n_test,
        "ceilings": [round(m.ceiling, 3) for m in cohort.members],
        "cortex": "ventral voxels read EfficientNet-Lite0, the network that scores: favourable",
    }
    together.wait()  # nobody writes before everybody has read

    def keep(finished: bool = False) -> dict[str, Any]:
        study.settle()
        found = {"finished": finished, "about": about, "rows": board.rows(), "contrasts": board.contrasts()}
        found["trainings"] = dict(sorted(study.trainer.efforts.items()))
        if together.first:
            board.save()
            write_json(out / "rows.json", found)
            _write_tables(out, found)
        return found

    study.keep = keep
    if jobs > 1:
        crew.run(study, jobs, context.check)
    else:
        study.run()
    found = keep(True)
    if together.first:
        study.show(out / "pictures.webp")
    return found


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Hold the folder against another call; of several processes under launch the first holds it for all."""
    from brainit.processes import rank
    from lab.runs.lock import FolderLock

    if rank():
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out):
        yield


def _jobs(settings: Settings, device: str, together: int) -> int:
    """Return the number of processes; on a GPU trainings are bound by launches, not by its arithmetic."""
    if together > 1 and (settings.jobs or 1) > 1:
        raise InputError(
            f"--jobs {settings.jobs} under launch with {together} processes: these already share each "
            "training; leave --jobs out"
        )
    if settings.jobs is not None or together > 1 or not device.startswith("cuda"):
        return settings.jobs or 1
    return max(1, min(MOST, len(os.sched_getaffinity(0)) // 2))


def _joined(before: str | None, now: str) -> str:
    """Return the commits (or devices) that a study was made at; one, unless it went on at another."""
    known = before.split(", ") if before else []
    return ", ".join(dict.fromkeys([*known, now]))


def _claim_pictures(out: Path, mark: str) -> None:
    """Refuse to go on with trainings on other pictures."""
    from lab.files import write_text

    known = out / "pictures.txt"
    if known.is_file() and known.read_text(encoding="utf-8").strip() != mark:
        raise InputError(f"{out} holds a study on other pictures; give another --out, or the same --data")
    write_text(known, mark + "\n")


def _write_tables(out: Path, found: dict[str, Any]) -> None:
    from lab.files import write_text

    rows, contrasts = found["rows"], found["contrasts"]
    named, scored = ["group", "what", "subjects", "guidance"], [*SCORES, *DIFFERENCES]
    write_text(out / "table.csv", _csv(rows, named, scored))
    write_text(out / "contrasts.csv", _csv(contrasts, ["contrast", "subjects"], list(SCORES)))
    lines = [f"{key}: {value}  " for key, value in found["about"].items()]
    lines += ["", *_markdown(rows, named, scored), "", "Compared on the same subjects and pictures:", ""]
    lines += _markdown(contrasts, ["contrast", "subjects"], list(SCORES))
    lines += ["", "Trainings:", "", "| training | steps | batch | seconds |", "| --- | --- | --- | --- |"]
    for name, effort in found["trainings"].items():
        lines.append(f"| {name} | {effort['steps']} | {effort['batch']} | {effort['seconds']} |")
    write_text(out / "table.md", "\n".join(lines) + "\n")


def _csv(rows: list[dict[str, Any]], named: list[str], scored: list[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*named, *(c for k in scored for c in (k, f"{k} low", f"{k} high"))])
    for row in rows:
        cells: list[Any] = [row[k] for k in named]
        for key in scored:
            cells += row.get(key) or ["", "", ""]
        writer.writerow(cells)
    return text.getvalue()


def _markdown(rows: list[dict[str, Any]], named: list[str], scored: list[str]) -> list[str]:
    lines = ["| " + " | ".join(named + scored) + " |", "|" + " --- |" * len(named + scored)]
    for row in rows:
        words = [str(row[k]) for k in named] + [_interval(row.get(k)) for k in scored]
        lines.append("| " + " | ".join(words) + " |")
    return lines


def _interval(found: list[float] | None) -> str:
    return f"{found[0]:.3f} [{found[1]:.3f}, {found[2]:.3f}]" if found else ""


def _short(row: dict[str, Any]) -> dict[str, Any]:
    shown = {k: row[k] for k in ("group", "what", "subjects")}
    shown |= {k: f"{row[k][0]:.3f}" if row.get(k) else "" for k in SCORES}
    return shown | {k: _interval(row.get(k)) for k in DIFFERENCES[:1]}


def _words(row: dict[str, Any]) -> dict[str, Any]:
    shown = {k: row[k] for k in ("contrast", "subjects")}
    return shown | {k: _interval(row.get(k)) for k in SCORES}


def _draw(out: Path, found: dict[str, Any]) -> None:
    from lab.figures.brain.cohort import Gain, cohort_study
    from lab.figures.brain.newcomer import Mark
    from lab.figures.plate import Provenance
    from lab.files import replacing

    marks, about = [], found["about"]
    most = max(row["subjects"] for row in found["rows"])

    def few(row: dict[str, Any]) -> str:
        """Say of how many subjects a row is, where it is not of as many as the others beside it."""
        count = row["subjects"]
        return "" if count == most else f" ({count} subject{'s' if count > 1 else ''})"

    for row in found["rows"]:
        if "pixcorr" not in row:
            continue
        score = (tuple(row["two_way"]), tuple(row["pixcorr"]))
        if row["group"].startswith("new subject"):
            marks.append(Mark(row["what"], *score, minutes=float(row["group"].split()[2])))
        elif not row["group"].startswith("bound") and row["what"] not in OFF_SCALE:
            marks.append(Mark(f"{row['group']}: {row['what']}{few(row)}", *score))
    source = f"study {about['preset']}, {about['device']}"
    samples = f"{about['n_test']} test pictures, {most} subject{'s' if most > 1 else ''} of the cohort"
    where = Provenance(source, samples, about["seed"], simulated=True)
    gains = [
        Gain(row["contrast"] + few(row), tuple(row["two_way"]), tuple(row["pixcorr"]))
        for row in found["contrasts"]
        if not row["contrast"].startswith("new subject") and row["contrast"] not in OFF_SCALE
    ]
    plate = cohort_study(marks, gains, where)
    with replacing(out / "figure.png") as temporary:
        temporary.write_bytes(plate.png(foot=True))
