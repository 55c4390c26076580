"""What a report shows of quantization, training, settings and terms: functions from a run to a block."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.figures import LayerRow, layer_bytes, layer_rows, mac_shares, share_of_macs, training_curve
from lab.report.block import Block, figure, sentence, table
from lab.report.rundata import RunData
from lab.runs.metrics import flat
from lab.runs.settings import resolve

# Options of `brainlab brain reconstruct`; every other setting goes through --set.
_FLAGS = (
    "dataset",
    "root",
    "subject",
    "preset",
    "recipe",
    "strength",
    "steps",
    "guidance",
    "n_samples",
    "seed",
    "device",
)
CLAIMS = (
    "A reconstruction shows what a decoder fitted to this one person's recordings of known pictures infers, "
    "together with what it learned from many other pictures: sharp detail may come from the model and not "
    "from the brain. It needs a person who took part willingly and lay still in a scanner for a long time. "
    "Nothing here reads thoughts, and no score on one person or one set of pictures says how it would be on "
    "others. {}Compare only runs with the same test pictures and scoring."
)
NO_PICTURES = CLAIMS.format("")
"""Where the page holds scores alone."""
CLAIMS = CLAIMS.format("Share this page under the terms of the data: it holds stimuli. ")
CATEGORY_CLAIMS = (
    "A decoded category is a guess among a few known ones, made by a decoder fitted to this one person's "
    "recordings of them. It needs a person who took part willingly and lay still in a scanner for a long "
    "time. Nothing here reads thoughts, and no score on one person says how it would be on others."
)


def _layers(run: RunData) -> list[LayerRow]:
    return layer_rows(run.ledger or run.plan)


def bit_summary(run: RunData) -> Block | None:
    """Say what was quantized to which bits and what it weighs."""
    if run.categories:
        return None  # no picture was drawn, so there is no denoiser to speak of
    rows, metrics = _layers(run), run.metrics
    if not rows and run.plain:
        return sentence("The decoder ran in full precision: nothing was quantized (recipe none).")
    if not rows:
        return sentence(
            "No ledger (ledger.json) is in this run folder, so what each layer became is not known."
        )
    left = [r for r in rows if not r.how]
    lines: list[tuple[str, Any]] = [("recipe", metrics.get("recipe") or run.ledger.get("recipe") or "–")]
    lines.append(
        ("layers", f"{len(rows) - len(left)} of {len(rows)} quantized, {len(left)} left in full precision")
    )
    lines.append(("multiply-adds", ", ".join(f"{bits} {share:.1%}" for bits, share in share_of_macs(rows))))
    if metrics.get("decoder_bytes"):
        other = run.ledger.get("bytes_other_before") or run.ledger.get("bytes_other") or 0
        before = sum(r.bytes_before for r in rows) + float(other)
        was = f" (before: {_size(before)})" if before else ""
        lines.append(("decoder", _size(float(metrics["decoder_bytes"])) + was))
    if metrics.get("decoder_mean_weight_bits"):
        lines.append(
            (
                "bits per weight",
                f"{metrics['decoder_mean_weight_bits']:.2f}, with scales, side branches and skipped layers",
            )
        )
    if not run.ledger:
        lines.append(("note", "only the plan was found: what was meant to be done, not what was done"))
    return table(lines)


def mac_bar(run: RunData) -> Block | None:
    """Draw the share of multiply-adds by bits."""
    rows = _layers(run)
    return figure(lambda theme: mac_shares(rows, run.provenance(_n(rows)), theme)) if rows else None


def byte_chart(run: RunData) -> Block | None:
    """Bytes before and after, largest layers."""
    rows = _layers(run)
    if not any(r.bytes_before for r in rows):
        return None
    return figure(lambda theme: layer_bytes(rows, run.provenance(_n(rows)), theme, most=12))


def layer_table(run: RunData) -> Block | None:
    """Show every layer with bits, bytes, error and path."""
    rows = _layers(run)
    lines = [
        {
            "name": r.name,
            "kind": r.kind,
            "bits": r.stated_bits,
            "macs": f"{r.macs:,.0f}" if r.macs else "",
            "before": f"{r.bytes_before:,.0f}",
            "after": f"{r.bytes_after:,.0f}",
            "sqnr": "" if r.sqnr is None else f"{r.sqnr:.1f}",
            "note": "; ".join(x for x in (r.reason, r.path) if x),
        }
        for r in rows
    ]
    return Block("layers", {"rows": lines}) if lines else None


def training_chart(run: RunData) -> Block | None:
    """Losses over epochs, from the log."""
    if run.categories:
        return None  # dozens of short trainings, two or three a fold
    events = [e for e in run.log if "epoch" in e and any(k in e for k in _TRAIN + _VALID)]
    if not events:
        return None
    # a run that went on has logged what was trained before once more
    logged = {(float(event["epoch"]), event.get("network")): event for event in events}
    epochs, networks = sorted({epoch for epoch, _ in logged}), list(dict.fromkeys(n for _, n in logged))
    losses = {
        name: [[_first(logged.get((epoch, n), {}), keys) for n in networks] for epoch in epochs]
        for name, keys in (("training", _TRAIN), ("validation", _VALID))
    }
    losses = {name: rows for name, rows in losses.items() if any(v is not None for row in rows for v in row)}
    source = run.provenance(f"{run.metrics.get('n_train', '?')} training trials")
    return figure(lambda theme: training_curve(epochs, losses, source, theme=theme))


def command_line(run: RunData) -> Block:
    """Write the command that gives this run."""
    if not run.config:
        return sentence("No config.yaml is in this run folder, so the command that made it cannot be given.")
    return Block("command", {"command": as_command(run.config), "hash": run.hash})


def as_command(config: Mapping[str, Any], out: str = "runs/again") -> str:
    """Return the shell command that gives exactly `config`.

    Options come first; ``--set`` follows for every other setting that is not what these options lead to by
    default in this version.
    """
    flags = {name: config[name] for name in _FLAGS if config.get(name) is not None}
    try:
        base = flat(resolve(ReconstructConfig, flags=flags).model_dump(mode="json"))
    except InputError:  # settings of another version: then every one is written out
        base = {}
    words = ["brainlab", "brain", "reconstruct"]
    for name, value in flags.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    for name, value in flat(config).items():
        if name not in flags and (name not in base or base[name] != value) and value != {}:
            words += ["--set", f"{name}={_as_yaml(value)}"]
    return " ".join(shlex.quote(w) for w in [*words, "--out", out])


def _as_yaml(value: Any) -> str:
    """Write a value so that YAML reads the same one back; plain text stays without quotes where it can."""
    if isinstance(value, str) and yaml.safe_load(value or "null") == value:
        return value
    return json.dumps(value)


def settings_table(run: RunData) -> Block | None:
    """Every setting."""
    rows = [(k, "–" if v is None else v) for k, v in flat(run.config).items()]
    return table(rows, folded=f"All {len(rows)} settings (hash {run.hash})") if rows else None


def versions_table(run: RunData) -> Block:
    """Versions of what took part."""
    if not run.versions:
        return sentence("No versions.json is in this run folder.")
    rows = [(k, v) for k, v in flat(run.versions).items()]
    if run.metrics.get("seconds_total") is not None:
        rows.append(("seconds in all", f"{run.metrics['seconds_total']:,.0f}"))
    return table(rows, folded="Versions and machine")


def data_terms(run: RunData) -> Block:
    """Terms and origin of the data."""
    subject = run.subject
    info = subject.get("info")
    info = info if isinstance(info, Mapping) else {}
    terms = subject.get("terms") or info.get("terms")
    return table([("terms of use", terms or "not recorded: ask whoever gave you the data")])


def data_facts(run: RunData) -> Block | None:
    """Show what the dataset says of itself, in its own words, folded."""
    info = run.subject.get("info")
    rows = [
        (k, v) for k, v in flat(info).items() if k not in ("terms", "warnings") and v not in (None, "", [])
    ] if isinstance(info, Mapping) else []  # fmt: skip
    return table(rows, folded="What the dataset says of itself") if rows else None


def claims(run: RunData) -> Block:
    """Say what this report does not show."""
    return sentence(CATEGORY_CLAIMS if run.categories else CLAIMS, quiet=False)


_TRAIN = ("train_loss", "training_loss", "train", "loss")
_VALID = ("validation_loss", "valid_loss", "val_loss", "valid", "validation")


def _first(event: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    return next((float(event[k]) for k in keys if isinstance(event.get(k), int | float)), None)


def _size(count: float) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _n(rows: list[LayerRow]) -> str:
    return f"{len(rows)} layers"
