"""Write the README's two places of timings from the committed ones, or check that they are what these say.

    python -m benchmarks.kernel_table

With ``--check`` it writes nothing and ends with 1 if the README says something else.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.files import read_csv
from benchmarks.markdown import table
from lab.errors import InputError, show
from lab.files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- kernels: written by python -m benchmarks.kernel_table -->", "<!-- end of kernels -->"
SHORT, SHORT_END = "<!-- kernels in short: written by the same -->", "<!-- end of the short ones -->"
LAYER = "W4A4 pow2 g64 rank 32, decoded per call"
COLUMNS = {
    "W4A4 pow2 g64 rank 32, decoded per call": "W4A4, rank 32",
    "W4A4 pow2 g64 rank 32, operand kept": "... operand kept",
    "gemm fp8": "fp8 product",
    "torch._scaled_mm": "torch `_scaled_mm`",
    "gemm int8": "int8 product",
    "torch._int_mm": "torch `_int_mm`",
    "W4A16 pow2 g64": "W4A16",
}
CONVOLUTIONS = {"conv2d fp8": "fp8", "conv2d int8": "int8"}
STEPS = "GroupNorm, SiLU, quantize: torch"
NORMS = {
    "GroupNorm + SiLU + quantize, scale from the image": "norm, scale found",
    "GroupNorm + SiLU + quantize, given scale": "scale given",
}
FORMATS = {
    "W4A8 e4m3, FP4 a channel": "FP4, fp8 inputs",
    "W4A4 codebook of 16 a channel": "codebook of 16, 4-bit inputs",
    "W1A4 one binary basis": "one binary basis",
    "W2A4 two binary bases": "two bases",
}
PEERS = {
    "humming int4 g64, float8e4m3 input": "humming int4 g64",
    "torchao float8 rows, compiled": "torchao fp8",
    "bitsandbytes NF4, bf16 input": "bitsandbytes NF4",
}
"""Of others, without a low-rank branch."""


def lines(results: Path = RESULTS) -> list[str]:
    """Return the table as Markdown: ratios to bf16 of the same shape in the same run.

    Raises
    ------
    InputError
        There are no committed timings.
    """
    file = results / "kernels-h200.csv"
    if not file.is_file():
        raise InputError(f"no timings at {file}; make them with brainlab bench kernels")
    rows = read_csv(file)
    places = {_place(row) for row in rows}
    if len(places) != 1:
        raise InputError(f"{file} mixes {' and '.join(sorted(places)) or 'nothing'}: time all on one device")
    others = results / "kernels-peers-h200.csv"
    peers = {(row["shape"], row["what"]): row for row in read_csv(others)} if others.is_file() else {}
    titles = ["M x K x N", "bf16, us", *COLUMNS.values(), *PEERS.values()]
    cells = []
    for shape in dict.fromkeys(row["shape"] for row in rows):
        found = {row["what"]: row for row in rows if row["shape"] == shape}
        if not set(COLUMNS) & set(found) or "us" not in found.get("bf16", {}):
            continue
        ratios = [_ratio(found.get(what)) for what in COLUMNS]
        cells.append(
            [shape, f"{found['bf16']['us']:.1f}", *ratios, *(_ratio(peers.get((shape, p))) for p in PEERS)]
        )
    head = f"Times as fast as bf16 cuBLAS, {_place(rows[0])}; the last three are peers, without a branch:"
    return [head, "", *table(titles, cells), *_formats(rows), *_images(rows), *_models(results)]


def _formats(rows: list[dict[str, Any]]) -> list[str]:
    """Weights whose codes stand for numbers of a table."""
    cells = []
    for shape in dict.fromkeys(row["shape"] for row in rows):
        found = {row["what"]: row for row in rows if row["shape"] == shape}
        if set(FORMATS) & set(found):
            cells.append([shape, *(_ratio(found.get(what)) for what in FORMATS)])
    head = "Whole linears of other weights, decoded in every call (codebooks and two bases are two products):"
    return ["", head, "", *table(["M x K x N", *FORMATS.values()], cells)] if cells else []


def _images(rows: list[dict[str, Any]]) -> list[str]:
    """Convolutions beside cuDNN, and the norm that writes codes beside torch's three steps."""
    cells = []
    for shape in dict.fromkeys(row["shape"] for row in rows):
        found = {row["what"]: row for row in rows if row["shape"] == shape}
        if "conv2d fp8" not in found:
            continue
        three = found.get(STEPS, {}).get("us")
        norms = [found.get(what, {}).get("us") for what in NORMS]
        faster = [f"{three / us:.2f}" if three and us else "" for us in norms]
        cells.append([shape, *(_ratio(found.get(what)) for what in CONVOLUTIONS), *faster])
    if not cells:
        return []
    head = (
        "Batch x side x channels in x out x kernel (-3: stride 2): convolutions beside bf16 cuDNN; "
        "group norm, SiLU and codes in one beside torch's three steps:"
    )
    titles = ["image", *CONVOLUTIONS.values(), *NORMS.values()]
    return ["", head, "", *table(titles, cells)]


def _models(results: Path) -> list[str]:
    """Whole models, if they were timed."""
    file = results / "whole-models-h200.csv"
    if not file.is_file():
        return []
    rows = read_csv(file)
    base = {row["model"]: row["bytes"] for row in rows if row["engine"] == "bf16"}
    cells = [
        [row["model"], row["engine"], f"{row['ms']:.1f}", f"{row['ratio']:.2f}", f"{row['bytes'] / 1e9:.2f}",
         f"{base[row['model']] / row['bytes']:.2f}" if row["model"] in base else ""]
        for row in rows
    ]  # fmt: skip
    commits = dict.fromkeys(f"{row['model']} at commit {row['commit']}" for row in rows)
    head = (
        f"Whole denoisers with random weights, compiled, as a CUDA graph, {_place(rows[0])} "
        f"({', '.join(commits)}; what was timed since, and what not yet: benchmarks/kernels/NOTES.md):"
    )
    return ["", head, "", *table(["model", "arithmetic", "ms", "times as fast", "GB", "times less"], cells)]


def short(results: Path = RESULTS) -> list[str]:
    """Return the README's first line about speed: the largest layers, and each whole model beside float8."""
    rows = [row for row in read_csv(results / "kernels-h200.csv") if row["what"] == LAYER and "ratio" in row]
    if not rows:
        return []
    most = max(map(_products, rows))
    layers = sorted(
        (row for row in rows if _products(row) == most), key=lambda row: (-row["ratio"], row["shape"])
    )
    ratios, shapes = ([words(row) for row in layers] for words in (_ratio, lambda row: row["shape"]))
    line = (
        f"- **Speed on a Hopper GPU** ({layers[0]['device']}): a whole 4-bit linear with its low-rank branch "
        f"is {_all(ratios)} times as fast as bf16 cuBLAS at {_all(shapes)} (`brainlab bench kernels`)"
    )
    file = results / "whole-models-h200.csv"
    models = read_csv(file) if file.is_file() else []
    words = []
    for model in dict.fromkeys(row["model"] for row in models):
        fastest = {
            kind: max((r for r in models if r["model"] == model and r["engine"].startswith(kind)),
                      key=lambda row: row["ratio"], default=None)
            for kind in ("bf16", "W4A4", "float8")
        }  # fmt: skip
        base, four, eight = fastest.values()
        if base is None or four is None:
            continue
        beside = "" if eight is None else f" (float8: {_gain(eight, base)})"
        words.append(f"of {model.upper()}'s size {_gain(four, base)}{beside}")
    if words:
        line += f"; denoisers, beside compiled bf16: {'; '.join(words)} (`python -m benchmarks.whole_models`)"
    return textwrap.wrap(
        f"{line}.", 130, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _products(row: dict[str, Any]) -> int:
    """Multiplications of a shape."""
    return math.prod(map(int, row["shape"].split("x")))


def _all(words: list[str]) -> str:
    """Join as people do."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _gain(row: dict[str, Any], base: dict[str, Any]) -> str:
    return f"{row['ratio']:.2f} times as fast in {base['bytes'] / row['bytes']:.2f} times less memory"


def _ratio(row: dict[str, Any] | None) -> str:
    return f"{row['ratio']:.2f}" if row and "ratio" in row else ""


def _place(row: dict[str, Any]) -> str:
    return f"one {row['device']}, torch {row['torch']}, Triton {row['triton']}"


def written(text: str, results: Path = RESULTS) -> str:
    """Return a README with the table, and the first line about speed, in their places.

    Raises
    ------
    InputError
        It has no such places.
    """
    text = _placed(text, SHORT, SHORT_END, short(results))
    return _placed(text, BEGIN, END, lines(results))


def _placed(text: str, first: str, last: str, new: list[str]) -> str:
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise InputError(f"the README has no lines {first!r} and {last!r}: put them where the table goes")
    return "\n".join([before + begin, *new, end + after])


def main(arguments: list[str] | None = None) -> int:
    """Parse arguments and write, or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernel_table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; say whether it is up to date")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    options = parser.parse_args(arguments)
    try:
        text = options.readme.read_text(encoding="utf-8")
        new = written(text)
    except (InputError, OSError) as error:
        return show(error)
    if options.check:
        words = "up to date" if new == text else "the README's table of kernels is of other timings"
        sys.stdout.write(f"{words}\n")
        return int(new != text)
    write_text(options.readme, new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
