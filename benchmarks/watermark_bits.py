"""Whether a watermark survives quantization of the decoder that writes it, and training as an attack.

    python -m benchmarks.watermark_bits --data DATA --keys K0,K1,K2 --extractor E --device cuda --out OUT

Every key is one seed. Forms: *merged* (the key is added to the weights, then they are rounded), *beside* (the
weights are rounded, the key stays in 16 bits beside them, SVDQuant's layout). Quality is measured against the
unmarked decoder quantized alike, so that what rounding costs is not blamed on the mark; the unmarked one is
read too, for false positives. Training is quantization-aware training of the marked decoder, for a
teacher (its own pictures) or for photographs (somebody who knows nothing of the mark, or wants it gone).
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks.files import read_csv, write_csv
from benchmarks.markdown import table
from benchmarks.watermark_formats import calibration_rows, convolutions, formats, nearest, quantized_
from lab import zoo
from lab.figures.plate import Plate, Provenance, axes, canvas
from lab.figures.tradeoff import STYLES
from lab.files import replacing, write_text
from lab.zoo.data import held_out, training
from lab.zoo.watermark.files import AUTOENCODER, load_extractor, load_key, marked_autoencoder
from lab.zoo.watermark.measuring import Meter
from lab.zoo.watermark.threats import batched
from quant.formats.codebooks import BinaryGrid
from quant.formats.granularity import Granularity
from quant.formats.quantizer import Quantizer, int_quantizer

ACTIVATIONS = ("rtn-w8a8", "rtn-w6a6", "rtn-w4a8", "rtn-w4a4")
RATE = 1e-6
CSV = "watermark-bits.csv"
ORDER = ("weights", "weights and inputs", "training")
FLOOR = 0.1
PLACES = {8: 0, 6: 1, 4: 2, 3: 3, 2: 4, 1: 5}
TRAINED_BITS = (8, 4, 3, 2, 1)
COLUMNS = ("group", "format", "bits", "form", "key", "n", "bit_error", "bit_error_low", "bit_error_high",
           "accepted_share", "accepted_loose", "margin", "psnr_db", "photo_db", "false", "false_loose",
           "unmarked_error", "steps", "device")  # fmt: skip


@dataclass
class Study:
    """Decoders, pictures and meter of one key."""

    seed: int
    file: Path
    meter: Meter
    plain: nn.Module
    marked: nn.Module
    photographs: Tensor
    device: str

    def row(
        self, chosen: str, bits: int, form: str, marked: nn.Module, plain: nn.Module, group: str, **more: Any
    ) -> dict[str, Any]:
        """Measure a marked decoder beside the unmarked one that was treated alike."""
        made, without = batched(marked, self.photographs), batched(plain, self.photographs)
        found, null = self.meter.row(group, chosen, made, without), self.meter.row(group, chosen, without)
        photo = self.meter.row(group, chosen, made, self.photographs)["psnr_db"]
        kept = {key: found[key] for key in COLUMNS if key in found}
        return {
            **kept, "group": group, "format": chosen, "bits": bits, "form": form, "key": self.seed,
            "photo_db": photo, "false": null["accepted_share"], "false_loose": null["accepted_loose"],
            "unmarked_error": null["bit_error"], **more,
        }  # fmt: skip


def rounding(study: Study) -> Iterator[dict[str, Any]]:
    """Weights by every format, the key merged before or kept beside."""
    yield study.row("float32", 32, "merged", study.marked, study.plain, "weights")
    rows = calibration_rows(study.plain, study.photographs[-64:])
    marked_rows = calibration_rows(study.marked, study.photographs[-64:])
    before, after = study.plain.state_dict(), study.marked.state_dict()
    for chosen in formats():
        plain = quantized_(copy.deepcopy(study.plain), chosen, rows)
        merged = quantized_(copy.deepcopy(study.marked), chosen, marked_rows)
        beside = copy.deepcopy(plain)
        beside.load_state_dict({k: v + after[k] - before[k] for k, v in plain.state_dict().items()})
        yield study.row(chosen.name, chosen.bits, "merged", merged, plain, "weights")
        yield study.row(chosen.name, chosen.bits, "beside", beside, plain, "weights")


def with_inputs(study: Study) -> Iterator[dict[str, Any]]:
    """Weights and inputs by the recipes that need no calibration, through the library's own layers."""
    import quant

    for recipe in ACTIVATIONS:
        plain, merged = copy.deepcopy(study.plain), copy.deepcopy(study.marked)
        for model in (plain, merged):
            quant.quantize_(model, recipe + "+skip=[]", include=["decoder.*"])
        bits = int(recipe[5])
        yield study.row(recipe, bits, "merged", merged, plain, "weights and inputs")
        beside = copy.deepcopy(plain)
        quant.attach_lora(beside, study.file)
        yield study.row(recipe, bits, "beside", beside, plain, "weights and inputs")


class Fake(nn.Module):
    """A weight rounded with ranges of the moment; gradients pass straight through."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.round = nearest(quantizer)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.round(weight.detach(), weight) - weight).detach()


def trained(study: Study, pictures: Tensor, steps: Sequence[int], batch: int) -> Iterator[dict[str, Any]]:
    """Train marked and unmarked decoder with rounding, for their own pictures or for photographs."""
    channel = Granularity(kind="channel")
    for bits in TRAINED_BITS:
        binary = Quantizer(grid=BinaryGrid(bits=1), granularity=channel)
        quantizer = binary if bits == 1 else int_quantizer(bits, "channel")
        for goal in ("teacher", "photographs"):
            runs = [
                _training(model, quantizer, goal, pictures, steps, batch, study.seed)
                for model in (study.marked, study.plain)
            ]
            for (step, marked), (_, plain) in zip(*runs, strict=True):
                yield study.row(f"QAT for {goal}", bits, "merged", marked, plain, "training", steps=step)


def _training(
    model: nn.Module,
    quantizer: Quantizer,
    goal: str,
    pictures: Tensor,
    steps: Sequence[int],
    batch: int,
    seed: int,
) -> Iterator[tuple[int, nn.Module]]:
    student: Any = copy.deepcopy(model).requires_grad_(False)
    for layer in convolutions(student).values():
        layer.requires_grad_(True)
        parametrize.register_parametrization(layer, "weight", Fake(quantizer))
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=3e-4, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    for step in range(max(steps) + 1):
        if step in steps:
            yield step, student
        index = torch.randint(len(pictures), (batch,), generator=generator)
        x = pictures[index.to(pictures.device)].float() / 255
        with torch.no_grad():
            raw = student.moments(x)[0]
            goal_pictures = model.reconstruct(raw) if goal == "teacher" else x  # type: ignore[operator]
        loss = (student.reconstruct(raw) - goal_pictures).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def summary(rows: Sequence[dict[str, Any]], about: str) -> str:
    """Markdown: means over keys, bit error with the range over keys."""
    shown = (("accepted_share", 3), ("accepted_loose", 3), ("margin", 2), ("psnr_db", 1), ("photo_db", 1))
    head = ["format", "bits", "form", "bit error, %", "accepted at 1e-6", "at 0.5 %", "margin",
            "PSNR to unmarked alike, dB", "PSNR to photograph, dB", "unmarked at 1e-6 / 0.5 %"]  # fmt: skip
    lines = ["# Does the watermark survive quantization of its decoder?", "", about, ""]
    for group in dict.fromkeys(row["group"] for row in rows):
        cells = []
        mine = [row for row in rows if row["group"] == group]
        for key in dict.fromkeys((r["format"], r["bits"], r["form"], r.get("steps")) for r in mine):
            same = [r for r in mine if (r["format"], r["bits"], r["form"], r.get("steps")) == key]
            error = [100 * r["bit_error"] for r in same]
            spread = f"{mean(error):.2f} [{min(error):.2f}, {max(error):.2f}]"
            after = "" if key[3] is None else f", {key[3]} steps"
            cells.append([
                key[0] + after, str(key[1]), key[2], spread,
                *(f"{mean(r[column] for r in same):.{digits}f}" for column, digits in shown),
                f"{mean(r['false'] for r in same):.4f} / {mean(r['false_loose'] for r in same):.4f}",
            ])  # fmt: skip
        lines += [f"## {group[0].upper()}{group[1:]}", "", *table(head, cells), ""]
    return "\n".join(lines)


def survival(rows: Sequence[dict[str, Any]], device: str) -> Plate:
    """Draw bit error over bits, one line a format; merged left, beside right; bars span the keys."""
    figure = canvas(9.0, 5.4, "light")
    styles = {name: STYLES[i] for i, name in enumerate(dict.fromkeys(f.name for f in formats()))}
    for place, form in enumerate(("merged", "beside")):
        ax = axes(figure, 1, 2, place + 1, theme="light", grid="y")
        for name, (colour, marker, line) in styles.items():
            mine = [r for r in rows if r["format"] == name and r["form"] == form and r["group"] == "weights"]
            levels = sorted({r["bits"] for r in mine}, reverse=True)
            errors = [[max(100 * r["bit_error"], FLOOR) for r in mine if r["bits"] == b] for b in levels]
            at = [PLACES[b] for b in levels]
            ax.plot(at, [mean(e) for e in errors], color=colour, marker=marker, linestyle=line, label=name)
            for x, e in zip(at, errors, strict=True):
                ax.plot([x, x], [min(e), max(e)], color=colour, linewidth=1)
        ax.axhline(50, color="#777777", linewidth=0.8)
        ax.set_yscale("log")
        ax.set_xticks(list(PLACES.values()), [str(b) for b in PLACES])
        ax.set(
            xlabel="bits of a weight", ylabel="wrong bits, %" if place == 0 else "", ylim=(0.8 * FLOOR, 70)
        )
        ax.set_title("mark merged, then rounded" if place == 0 else "mark in 16 bits beside", loc="left")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    n, keys = rows[0]["n"], len({r["key"] for r in rows})
    source = Provenance(f"autoencoder-64 on {device}", f"{n} held-out pictures, {keys} keys")
    caption = (
        "Wrong message bits over bits of the decoder's weights (simulated); the grey line is chance. Bars "
        f"are the range over keys; below {FLOOR} % is drawn there. {source.sentence()}"
    )
    return Plate(figure, caption, "Two line charts of wrong bits over weight bits, by format.")


def main() -> None:
    """Run the study, several keys at once; the table is written after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--keys", default="", help="key files with commas between: one seed each")
    parser.add_argument("--extractor", type=Path)
    parser.add_argument(
        "--again", action="store_true", help="only write table and figure, from the CSV there"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n", type=int, default=500, help="held-out pictures")
    parser.add_argument("--steps", default="0,100,300", help="steps of training at which is measured")
    parser.add_argument("--jobs", type=int, default=1, help="groups of rows at once")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--groups", default="weights,inputs,training")
    given = parser.parse_args()
    if given.again:
        _write([row | {"steps": row.get("steps")} for row in read_csv(given.out / CSV)], given.out)
        return
    device = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    groups = [group for group in ("training", "weights", "inputs") if group in given.groups]  # longest first
    names = given.keys.split(",")
    jobs = [(seed, Path(name), group, given) for group in groups for seed, name in enumerate(names)]
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(min(given.jobs, len(jobs))) as pool:
        for found in pool.imap_unordered(measure, jobs):
            rows += [{**row, "device": device} for row in found]
            rows.sort(key=lambda row: (ORDER.index(row["group"]), row["key"]))
            write_csv(given.out / CSV, [{k: r.get(k) for k in COLUMNS} for r in rows])
            _write(rows, given.out)


def _write(rows: list[dict[str, Any]], out: Path) -> None:
    """Write the table for reading, and the figure once there are rows for it."""
    device, keys = rows[0]["device"], len({row["key"] for row in rows})
    about = (
        f"`python -m benchmarks.watermark_bits` on {device}: 48 bits, {rows[0]['n']} held-out pictures, one "
        f"key a seed, {keys} keys; ranges in brackets are over keys. All convolutions of the decoder are "
        "quantized; arithmetic is simulated. PSNR is to the unmarked decoder quantized alike; the last "
        "column is that decoder's own pictures, none of which should be accepted."
    )
    write_text(out / "watermark-bits.md", summary(rows, about))
    if any(row["group"] == ORDER[0] for row in rows):
        with replacing(out / "watermark-bits.png") as temporary:
            temporary.write_bytes(survival(rows, device).png(foot=True))


def measure(job: tuple[int, Path, str, argparse.Namespace]) -> list[dict[str, Any]]:
    """Measure one group of rows with one key."""
    seed, file, group, given = job
    torch.set_num_threads(1)
    reader = load_extractor(given.extractor, given.device)
    key = load_key(file, given.extractor, reader.config["bits"])
    photographs = held_out(given.data).images[: given.n].to(given.device).float() / 255
    plain = zoo.load(AUTOENCODER, given.device).requires_grad_(False)
    marked = marked_autoencoder(file, given.device).requires_grad_(False)
    study = Study(seed, file, Meter(reader, key.message, RATE), plain, marked, photographs, given.device)
    if group == "weights":
        return list(rounding(study))
    if group == "inputs":
        return list(with_inputs(study))
    pictures = training(given.data, limit=9000).images[:9000].to(given.device)
    steps = tuple(int(word) for word in given.steps.split(","))
    return list(trained(study, pictures, steps, given.batch))


if __name__ == "__main__":
    main()
