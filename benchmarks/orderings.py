"""Orderings that publications claim, read from ``orderings.yaml`` and judged on a comparison's numbers.

::

    python -m benchmarks.orderings runs/compare --out orderings.csv     judge a finished comparison
    python -m benchmarks.orderings --recipes dit-64                     the recipes that its claims name
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks.files import write_csv
from lab.compare.networks import DOMAIN, LITE0
from lab.compare.recipes import ALL, OTHER_SEED, allocations, groups
from lab.compare.results import stored
from lab.compare.statistics import Scores
from lab.compare.summary import LARGER_IS_BETTER
from quant import recipes
from quant.errors import InputError

FILE = Path(__file__).with_name("orderings.yaml")
KINDS = ("increasing", "within", "null")
SAME_BYTES = 0.02
"""Recipes that claim equal size may differ by this share."""
_FALLBACK = "latent_sqnr_db"


@dataclass(frozen=True)
class Ordering:
    """One claim.

    Parameters
    ----------
    kind : {"increasing", "within", "null"}
        increasing: each recipe better than the one before, by more than ``gap``. within: each recipe after
        the first at most ``gap`` below the first. null: each recipe's pictures are no farther from full
        precision's than full precision's with other seeds.
    metric : str
        Of `LARGER_IS_BETTER`.
    recipes : tuple of str
        From worst to best (increasing); reference first (within).
    same_bytes : bool
        The claim is about recipes of equal size.
    study : bool
        Judged where its recipes are compared, but not part of the committed tables: too long.
    """

    id: str
    says: str
    source: str
    kind: Literal["increasing", "within", "null"]
    recipes: tuple[str, ...]
    models: tuple[str, ...] = ()
    metric: str = "psnr_db"
    gap: float = 0.0
    same_bytes: bool = False
    study: bool = False

    def concerns(self, model: str) -> bool:
        """Whether the claim is judged on this model."""
        return not self.models or model in self.models

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(worse, better) pairs; (reference, candidate) for "within"."""
        if self.kind == "within":
            return [(self.recipes[0], r) for r in self.recipes[1:]]
        return list(pairwise(self.recipes))


@lru_cache(maxsize=1)
def load_orderings() -> tuple[Ordering, ...]:
    """Read the file; a wrong entry is an error of the program."""
    entries = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    made = []
    for entry in entries:
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        ordering = Ordering(**plain)
        if ordering.kind not in KINDS or ordering.metric not in LARGER_IS_BETTER:
            raise ValueError(f"{FILE.name}: {ordering.id} has kind {ordering.kind}, metric {ordering.metric}")
        made.append(ordering)
    return tuple(made)


def parse_known(name: str, model: str = "") -> bool:
    """Whether a recipe exists in this version."""
    try:
        recipes.parse(name, allocations(model))
    except InputError:
        return False
    return True


def claimed(model: str, name: str = "") -> list[str]:
    """Recipes that claims about a model name, those of this version; of one claim if ``name`` is given.

    Without a name, studies are left out: they are too long for a table of everything.
    """
    claims = [o for o in load_orderings() if o.concerns(model)]
    claims = [o for o in claims if (o.id == name if name else not o.study)]
    return list(dict.fromkeys(r for o in claims for r in o.recipes if parse_known(r, model)))


def everything(model: str) -> list[str]:
    """Recipes of the committed tables: presets without training, those that claims name, the allocations.

    Presets that train take thousands of steps; `benchmarks.trained` has them.
    """
    return list(dict.fromkeys([*groups(model)[ALL], *claimed(model)]))


def judge(scores: Scores, model: str, orderings: Sequence[Ordering] | None = None) -> list[dict[str, Any]]:
    """Judge every ordering for this model: flat rows, one a pair (or a recipe, for "null").

    ``orderings`` are those of the file unless others are given.

    Verdicts: *held*: the interval lies beyond what is claimed; *reversed*: it lies on the other side of 0;
    *smaller*: the order holds but the interval lies below the claimed gap; *undecided*: the interval does not
    say; *not run*: a recipe is not in this comparison or does not exist in this version.
    """
    rows = []
    for ordering in load_orderings() if orderings is None else orderings:
        run = set(ordering.recipes) <= set(scores.by_recipe)
        if not ordering.concerns(model) or (ordering.study and not run):
            continue
        about = {"id": ordering.id, "kind": ordering.kind, "says": ordering.says, "source": ordering.source}
        if ordering.kind == "null":
            rows += [about | _null_row(scores, recipe, model) for recipe in ordering.recipes]
        else:
            rows += [about | _pair_row(scores, ordering, *pair, model) for pair in ordering.pairs]
    return rows


def verdict(low: float, high: float, gap: float, within: bool = False) -> str:
    """Turn an interval of "better minus worse" into a word.

    Examples
    --------
    >>> verdict(0.2, 0.9, 0.0), verdict(-0.1, 0.3, 0.0), verdict(-2.0, -1.0, 0.0), verdict(1.0, 2.0, 3.0)
    ('held', 'undecided', 'reversed', 'smaller')
    """
    if within:
        return "held" if low >= -gap else ("reversed" if high < -gap else "undecided")
    if low > gap or (gap > 0 and low >= gap):
        return "held"
    if high < 0:
        return "reversed"
    return "smaller" if gap > 0 and low > 0 and high < gap else "undecided"


def _pair_row(scores: Scores, ordering: Ordering, worse: str, better: str, model: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "worse": worse, "better": better, "metric": ordering.metric, "gap": ordering.gap, "difference": None,
        "low": None, "high": None, "verdict": "not run", "note": "",
    }  # fmt: skip
    absent = [r for r in (worse, better) if r not in scores.by_recipe]
    if absent:
        row["note"] = _why_absent(absent, model)
        return row
    found = scores.difference(better, worse, ordering.metric)
    if found is None:
        row["metric"] = _FALLBACK
        found = scores.difference(better, worse, _FALLBACK)
    if found is None:
        row["note"] = "no seed that both have"
        return row
    sign = 1 if LARGER_IS_BETTER[row["metric"]] else -1
    low, high = sorted((sign * found.low, sign * found.high))
    row |= {"difference": sign * found.mean, "low": low, "high": high}
    row["verdict"] = verdict(low, high, ordering.gap, ordering.kind == "within")
    sizes = [scores.scalars(r, "bytes") for r in (worse, better)]
    if ordering.same_bytes and all(sizes) and sizes[1][0] > sizes[0][0] * (1 + SAME_BYTES):
        row["verdict"] = "undecided"
        row["note"] = f"the better one is {sizes[1][0] / sizes[0][0] - 1:.1%} larger"
    return row


def _null_row(scores: Scores, recipe: str, model: str) -> dict[str, Any]:
    """Whether every seed's set distance stays below the null's, in every network at hand."""
    row: dict[str, Any] = {
        "worse": OTHER_SEED, "better": recipe, "metric": "", "gap": 0.0, "difference": None, "low": None,
        "high": None, "verdict": "not run", "note": "",
    }  # fmt: skip
    if recipe not in scores.by_recipe:
        row["note"] = _why_absent([recipe], model)
        return row
    said, beyond = [], []
    for name in (f"{kind}({layer})" for layer in (LITE0, DOMAIN) for kind in ("KID", "FD")):
        ours, null = scores.scalars(recipe, name), scores.scalars(OTHER_SEED, f"{name}.high")
        if ours and null:
            said.append(f"{name} {max(ours):.3g} against {max(null):.3g}")
            beyond += [name] if max(ours) > max(null) else []
            row |= {"difference": max(null) - max(ours)} if row["difference"] is None else {}
    if said:
        row |= {"verdict": "reversed" if beyond else "held", "metric": "KID and FD", "note": "; ".join(said)}
    else:
        row["note"] = "no set distances: the model has no pictures"
    return row


def _why_absent(names: list[str], model: str) -> str:
    unknown = [name for name in names if not parse_known(name, model)]
    if unknown:
        return f"recipe missing in this version: {', '.join(unknown)}"
    return f"not in this comparison: {', '.join(names)}"


def main() -> None:
    """Judge a comparison's folder, or list the recipes that claims name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="that brainlab compare wrote")
    parser.add_argument("--recipes", metavar="MODEL", help="list what the claims about MODEL name")
    parser.add_argument("--claim", default="", help="with --recipes: of this claim only")
    parser.add_argument("--out", type=Path, help="CSV file of the verdicts")
    given = parser.parse_args()
    if given.recipes:
        print(",".join(claimed(given.recipes, given.claim)))
        return
    if given.folder is None or given.out is None:
        parser.error("give a folder and --out, or --recipes MODEL")
    about = json.loads((given.folder / "results.json").read_text(encoding="utf-8"))["about"]
    write_csv(given.out, judge(Scores(stored(given.folder)), about["model"]))


if __name__ == "__main__":
    main()
