"""A run's scores as a report shows them, for tables on a terminal and in forms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import MissingDataError
from lab.jobs.contract import Table, line, record

if TYPE_CHECKING:
    from brainit.metrics import Interval

_CATEGORY = (("", "Brain-IT"), ("network.", "networks alone"), ("ridge.", "ridge on betas"))


def score_table(metrics: Mapping[str, Any]) -> list[Table]:
    """Return scores with intervals beside chance, full precision, ridge and mean image, and what they are of.

    Of a score that is better where it is lower, the name says so.

    Parameters
    ----------
    metrics : mapping
        Flat ``metrics.json``.
    """
    from lab.figures.brain.scores import metric_rows

    rows: list[dict[str, Any]] = []
    for row in metric_rows(metrics):
        cells = {
            row.label_of(arm): _cell(cell, row.digits)
            for arm, cell in row.cells.items()
            if row.main == "quantized" or arm != row.main
        }
        chance = "-" if row.chance is None else f"{row.chance:.{row.digits}f}"
        # chance stands first: a narrow terminal leaves out what comes last
        label = row.label if row.larger_is_better else f"{row.label} (lower)"
        rows.append({"score": label, "chance": chance, **cells})
    for prefix, label in _CATEGORY:
        name = f"{prefix}category.accuracy"
        if name in metrics:
            score = {"decoder": label, "accuracy": metrics[name], "p": metrics.get(f"{name}.p")}
            rows.append({**score, "chance": metrics.get("category.chance")})
    facts = {key: metrics[key] for key in ("dataset", "subject", "n_test", "recipe") if key in metrics}
    if "arithmetic" in metrics:
        facts["arithmetic"] = metrics["arithmetic"]
    if metrics.get("simulated"):
        facts["subject is"] = "simulated"
    if "decoder_bytes" in metrics:
        facts["decoder"] = f"{metrics['decoder_bytes'] / 1e6:.2f} MB"
    if "paired_psnr_to_fp" in metrics and metrics.get("recipe") != "none":
        facts["PSNR to full precision"] = f"{metrics['paired_psnr_to_fp']:.1f} dB"
    if network := metrics.get("two_way_feature.network"):
        facts["features of"] = network
    if metrics.get("leaks"):
        facts["leaks"] = metrics["leaks"]
    elif "leak_test_in_train" in metrics:
        facts["test pictures in training"] = metrics["leak_test_in_train"]
    tables = [Table(rows)] if rows else []
    return [*tables, record(facts)] if facts or rows else [record(dict(metrics))]


def difference_table(
    one: Mapping[str, Any], two: Mapping[str, Any], paired: Mapping[tuple[str, str], Interval]
) -> list[Table]:
    """Return the scores of two runs beside each other, with their difference.

    Parameters
    ----------
    one, two : mapping
        Flat ``metrics.json``.
    paired : mapping
        As `lab.runs.by_picture.differences` gives it; differences that it lacks have no interval.
    """
    from lab.figures.brain.scores import ARMS, metric_rows

    sets = {label: prefix.rstrip(".") or "quantized" for prefix, label, *_ in ARMS}
    other = {row.key: row for row in metric_rows(two)}
    rows: list[dict[str, Any]] = []
    for row in metric_rows(one):
        if row.key not in other:
            continue
        for arm, cell in row.cells.items():
            against = other[row.key].cells[arm]
            if cell.value is not None and against.value is not None:
                sure = paired.get((sets[arm], row.key))
                gap = _gap(against.value - cell.value, sure, row.digits)
                # where the difference has its interval, those of the two say less
                one_by_one = [
                    f"{c.value:.{row.digits}f}" if sure else _cell(c, row.digits) for c in (cell, against)
                ]
                pair = dict(zip(("first", "second"), one_by_one, strict=True))
                rows.append({"score": row.label, "of": arm, "difference": gap, **pair})
    for prefix, label in _CATEGORY:
        name = f"{prefix}category.accuracy"
        if name in one and name in two:
            pair = {"first": _share(one, name), "second": _share(two, name)}
            gap = _gap(two[name] - one[name], paired.get((prefix, "category.accuracy")), 3)
            rows.append({"score": "category accuracy", "of": label, "difference": gap, **pair})
    return [Table(rows)] if rows else []


def other_tests(one: Path, two: Path) -> str:
    """Say that two run folders were tested on different pictures or trials; empty where they were not."""
    from lab.report.rundata import read_run

    if not (one.is_dir() and two.is_dir()) or read_run(one).tested == read_run(two).tested:
        return ""
    return "the runs were tested on different pictures or trials: a difference does not rank their decoders"


def check_run(path: Path) -> None:
    """Refuse a run folder that is not there, or has no metrics yet.

    Raises
    ------
    MissingDataError
        There is nothing at the path, or nothing that was measured.
    """
    from lab.runs.metrics import read_metrics

    if not path.exists():
        raise MissingDataError(f"no run folder at {path}: the path does not exist; check it")
    read_metrics(path)


def warnings_of(out: Path) -> tuple[str, ...]:
    """Return what a run folder says was odd about its data: it belongs beside the scores."""
    file = out / "subject.json"
    return tuple(json.loads(file.read_text(encoding="utf-8")).get("warnings") or ()) if file.is_file() else ()


def warned(warnings: Iterable[str]) -> list[Table]:
    """Return a line for each warning."""
    return [line(f"warning: {said}") for said in warnings]


def _gap(value: float, sure: Interval | None, digits: int) -> str:
    if sure is not None and sure.low == sure.high == 0:
        return "same"
    bounds = "" if sure is None else f" [{sure.low:+.{digits}f}, {sure.high:+.{digits}f}]"
    return f"{value:+.{digits}f}{bounds}"


def _share(metrics: Mapping[str, Any], name: str) -> str:
    low, high = metrics.get(f"{name}.low"), metrics.get(f"{name}.high")
    bounds = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{metrics[name]:.3f}{bounds}"


def _cell(cell: Any, digits: int) -> str:
    if cell.value is None:
        return "-"
    bounds = "" if cell.low is None else f" [{cell.low:.{digits}f}, {cell.high:.{digits}f}]"
    return f"{cell.value:.{digits}f}{bounds}"
