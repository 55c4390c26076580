"""The report of one run: sections out of ``sections.yaml``, rendered into one file."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from lab.figures import metric_rows
from lab.report import categories, parts, reportlets
from lab.report.block import Block
from lab.report.document import HTMLDocument
from lab.report.rundata import RunData, read_run

_HERE = Path(__file__).parent
_MAKERS: dict[str, Callable[[RunData], Block | None]] = {
    name: getattr(module, name)
    for module, names in (
        (reportlets, "metric_table score_notes picture_groups leak_check"),
        (reportlets, "cluster_map ceiling_map attention_map regions"),
        (parts, "bit_summary mac_bar byte_chart layer_table training_chart command_line settings_table"),
        (parts, "versions_table data_terms claims data_facts"),
        (categories, "category_table category_notes category_chart confusion_chart"),
    )
    for name in names.split()
} | {"score_chart": reportlets.score_chart_block}


def build_report(run_dir: Path | str) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    Reads nothing but that folder. The page is complete in itself: it opens offline and asks for nothing.

    Raises
    ------
    MissingDataError
        If the folder has no ``metrics.json``. Any other file may be missing; the page then says so.
    """
    return report_document(run_dir).save_as_html(Path(run_dir) / "report.html")


def report_document(run_dir: Path | str) -> HTMLDocument:
    """Return the report of a run folder as a page, without writing it."""
    run = read_run(run_dir)
    sections = []
    for section in yaml.safe_load((_HERE / "sections.yaml").read_text(encoding="utf-8")):
        made = [_MAKERS[name](run) for name in section["reportlets"]]
        blocks = [render_block(block) for block in made if block is not None]
        if blocks:
            sections.append({"intro": "", **section, "blocks": blocks})
    return render_page(
        title=f"{run.name}: fMRI to {'categories' if run.categories else 'pictures'}",
        eyebrow="Simulated subject" if run.simulated else "Measured fMRI",
        heading=run.name,
        summary=summary(run),
        banner=_banner(run),
        sections=sections,
        problems=run.problems,
    )


def summary(run: RunData) -> list[str]:
    """Say the result in two or three sentences."""
    if run.categories:
        return [*categories.category_summary(run), *filter(None, [leak_sentence(run)])]
    m = run.metrics
    who = "a simulated subject" if run.simulated else "measured fMRI"
    bits = m.get("decoder_mean_weight_bits")
    decoder = (
        f"decoder quantized by {m['recipe']}"
        if m.get("recipe") not in (None, "none")
        else "full-precision decoder"
    )
    how = m.get("arithmetic")  # unknown to runs of an early version
    words = f", {how}" if how in ("simulated", "native") else ""
    decoder += f" ({bits:.2f} bits per weight{words})" if isinstance(bits, int | float) else ""
    lines = [
        f"{m.get('n_test', '?')} test pictures reconstructed from {who} after {m.get('n_train', '?')} "
        f"training trials, with a {decoder}."
    ]
    rows = metric_rows(m)
    if rows:
        first = rows[0]
        ours = first.cells["quantized"]
        said = f"{first.label} {ours.value:.{first.digits}f}"
        if ours.low is not None and ours.high is not None:
            said += f" [{ours.low:.{first.digits}f}, {ours.high:.{first.digits}f}]"
        rivals = [
            f"{arm} {cell.value:.{first.digits}f}"
            for arm, cell in first.cells.items()
            if arm != "quantized" and cell.value is not None
        ]
        rivals += [f"chance {first.chance:.{first.digits}f}"] if first.chance is not None else []
        lines.append(said + (f", beside {', '.join(rivals)}." if rivals else "."))
    return [*lines, leak_sentence(run)] if leak_sentence(run) else lines


def leak_sentence(run: RunData) -> str:
    """Say what the leak check found, and what scores mean where it found something."""
    line = f"{run.leaks[0].upper()}{run.leaks[1:]}." if run.leaks else ""
    return f"{line} Scores on these pictures measure recall, not decoding." if run.leaked else line


def _banner(run: RunData) -> str:
    if not run.simulated:
        return ""
    info = run.subject.get("info")
    made = info.get("stimuli") or info.get("stimulus_source") if isinstance(info, dict) else None
    about = f" Stimuli: {made}." if made else ""
    return (
        "Simulated subject. No brain was measured: the responses come from a forward model of visual cortex "
        "with added noise. Scores show that the program works, not how well real brains can be decoded."
        f"{about}"
    )


def render_block(block: Block) -> Markup:
    """Render one block with its template."""
    return Markup(_environment().get_template(f"{block.template}.html.j2").render(**block.context))


def render_page(**context: Any) -> HTMLDocument:
    """Render a whole page: the style is written into it."""
    style = Markup((_HERE / "templates" / "style.css").read_text(encoding="utf-8"))
    return HTMLDocument(_environment().get_template("page.html.j2").render(style=style, **context))


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breaks"] = _breaks
    return environment


def _breaks(name: str) -> Markup:
    """Let a long recipe name break before its changes, not inside a word."""
    return Markup("<wbr>+").join(name.split("+"))
