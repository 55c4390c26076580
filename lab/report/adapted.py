"""The page of an adapted subject: what was read of it, and its curve over minutes of scanning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.figures.brain.newcomer import Mark, newcomer_curve
from lab.figures.plate import Plate, Provenance, Theme
from lab.files import replacing
from lab.report.block import Block, figure, sentence, table
from lab.report.page import render_block, render_page
from lab.report.parts import NO_PICTURES

_FACTS = {"n_test": "test pictures", "n_trials": "training trials", "leaks": "leak check",
          "test_pictures_in_training": "test pictures in training"}  # fmt: skip


_WARNINGS = "Warnings about the data"


def write_adapted_page(
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    source: str,
    seed: int,
    out: Path,
    odd: Sequence[str] = (),
) -> Path:
    """Write ``report.html`` and, where there is a curve, ``figures/curve.png``; return the page's path.

    Parameters
    ----------
    facts : mapping
        Subject, whether it is simulated, trials, leaks.
    rows : sequence of mapping
        Minutes, trials, method and scores with their intervals; may be empty.
    source : str
        Dataset and subject.
    odd : sequence of str
        Warnings about the data.
    """
    who = "Simulated subject" if facts["simulated"] else "Measured fMRI"
    blocks: list[Block] = [sentence("No curve was asked for (--curve 15,30,60).")]
    picture = out / "figures" / "curve.png"
    summary = f"The shared network, adapted to {facts['subject']} from {facts['n_trials']} trials."
    if rows:

        def draw(theme: Theme) -> Plate:
            where = Provenance(
                source,
                f"{facts['n_test']} test pictures",
                seed,
                simulated=facts["simulated"],
                leaks=facts["leaks"],
            )
            return newcomer_curve([_mark(row) for row in rows], where, theme)

        with replacing(picture) as temporary:
            temporary.write_bytes(draw("light").png(foot=True))
        blocks = [figure(draw), table([(_label(row), _words(row)) for row in rows])]
        last = [row for row in rows if row["minutes"] == rows[-1]["minutes"]]
        summary += f" After {last[0]['minutes']:g} minutes: " + ", ".join(
            f"{row['method']} {row['two_way']:.3f}" for row in last
        )
        summary += " (feature two-way, chance .5)."
    else:
        picture.unlink(missing_ok=True)  # of an earlier call
    known = [
        (
            _FACTS.get(key, key),
            ("no", "yes")[value] if isinstance(value, bool) else str(value).removeprefix("leak check: "),
        )
        for key, value in facts.items()
        if key != "read_out_weights"
    ]
    known += [
        (f"read-out, components {which}", f"{ridge:g} x ridge + {prior:g} x the shared prior (Bayes)")
        for which, ridge, prior in read_outs(facts)
    ]
    sections = [
        ("curve", "Over minutes of scanning", blocks),
        ("made", "How it was made", [table(known), sentence(NO_PICTURES, quiet=False)]),
    ]
    title = f"{source}: a new subject"
    page = render_page(
        title=title, eyebrow=who, heading=title, summary=[summary, _leaks(facts)],
        banner="Simulated subject: no brain was measured." if facts["simulated"] else "",
        sections=[
            {"id": name, "title": head, "intro": "", "blocks": [render_block(b) for b in own]}
            for name, head, own in sections
        ],
        problems=list(odd), warnings=_WARNINGS,
    )  # fmt: skip
    return page.save_as_html(out / "report.html")


def _leaks(facts: Mapping[str, Any]) -> str:
    line = f"{facts['leaks'][:1].upper()}{facts['leaks'][1:]}."
    leaked = facts.get("test_pictures_in_training")
    return f"{line} Scores on these pictures measure recall, not decoding." if leaked else line


def read_outs(facts: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Return weights of ridge and of Bayes decoding for each block of the tokens' components, in order."""
    blocks = facts.get("read_out_weights", {})
    ends = sorted((int(first), int(last), name) for name in blocks for first, last in [name.split("-")])
    return [(f"{a + 1} to {b}", float(blocks[name][0]), float(blocks[name][1])) for a, b, name in ends]


def _interval(row: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    return row[key], row[f"{key} low"], row[f"{key} high"]


def _mark(row: Mapping[str, Any]) -> Mark:
    return Mark(row["method"], _interval(row, "two_way"), _interval(row, "pixcorr"), row["minutes"])


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['method']}, {row['minutes']:g} min, {row['trials']} trials"


def _words(row: Mapping[str, Any]) -> str:
    said = []
    for key, name in (("two_way", "two-way"), ("pixcorr", "PixCorr")):
        mean, low, high = _interval(row, key)
        low_above, high_above = row[f"{key} above ridge low"], row[f"{key} above ridge high"]
        # ridge is not above itself
        rival = f" (above ridge {low_above:.3f} to {high_above:.3f})" if low_above or high_above else ""
        said.append(f"{name} {mean:.3f} [{low:.3f}, {high:.3f}]{rival}")
    return "; ".join(said)
