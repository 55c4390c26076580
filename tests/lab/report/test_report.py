"""The report: complete, offline, honest about what is missing."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.jobs.brain.scores import other_tests
from lab.report import HTMLDocument, bits, build_group_report, build_report, report_document
from lab.report.group import group_document
from lab.report.page import _MAKERS, _environment, render_block, summary
from lab.report.parts import as_command
from lab.report.rundata import read_run
from lab.runs.folder import config_hash
from lab.runs.settings import resolve


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.loads += [
            values[k] for k in ("src", "srcset", "href", "poster", "action", "data") if values.get(k)
        ]
        if tag == "img":
            self.images.append(values)
        if tag not in ("meta", "img", "source", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def simulated(simulated_run) -> str:
    return build_report(simulated_run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def measured(measured_run) -> str:
    return build_report(measured_run).read_text(encoding="utf-8")


def test_page_is_self_contained(simulated, measured):
    for text in (simulated, measured):
        page = Page(text)
        assert page.open == []  # every tag closed
        assert all(load.startswith(("data:image/", "#")) for load in page.loads)
        assert not re.search(r"https?://|@import|url\(|<link|<iframe", text)
        assert "default-src 'none'" in text
        assert len(text) < 3_000_000
        assert all(image["alt"] and len(image["alt"]) > 8 for image in page.images)


def test_what_must_be_said_is_said(simulated, simulated_run):
    text, metrics = Page(simulated).text, json.loads((simulated_run / "metrics.json").read_text())
    assert f"{metrics['pixcorr']:.3f}" in text
    assert f"[{metrics['pixcorr.low']:.3f}, {metrics['pixcorr.high']:.3f}]" in text
    for words in (
        "Simulated subject. No brain was measured", "W8A8 (simulated)", "0 of 40 test pictures occur",
        "median: nearest", "MNI152 template", "photographs from a folder", "Nothing here reads thoughts",
        "brainlab brain reconstruct --dataset simulated", "All 34 layers", "torch 2.13.0",
        "first or last layer", "40 test pictures, seed 0, settings",
    ):  # fmt: skip
        assert words in text, words


def test_measured_subject_without_places(measured):
    text = Page(measured).text
    assert "No brain was measured" not in text
    assert "Measured fMRI" in text
    assert "places are not in the file" in text
    assert "With 10 test pictures the intervals are wide" in text


def test_same_folder_same_bytes(measured_run, measured):
    assert build_report(measured_run).read_text(encoding="utf-8") == measured


def without(source: Path, folder: Path, *names: str) -> Path:
    """Copy a run folder less some files; what is slow to draw is left out where it does not matter."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("report.html", *names))
    return folder


@pytest.mark.parametrize(
    ("missing", "reportlet", "says"),
    [
        ("arrays.npz", "picture_groups", "No reconstructed pictures are stored"),
        ("arrays.npz", "cluster_map", "Neither places nor clusters"),
        ("ledger.json", "bit_summary", "what each layer became is not known"),
        ("config.yaml", "command_line", "the command that made it cannot be given"),
        ("versions.json", "versions_table", "No versions.json"),
        ("subject.json", "data_terms", "ask whoever gave you the data"),
    ],
)
def test_a_missing_file_is_a_sentence(measured_run, tmp_path, missing, reportlet, says):
    run = read_run(without(measured_run, tmp_path / "run", missing))
    assert says in render_block(_MAKERS[reportlet](run))
    assert any(p.startswith(f"{missing} is not in this run folder") for p in run.problems)


def test_training_is_drawn_where_it_is_logged_and_hidden_where_not(measured_run, undrawn, tmp_path):
    from lab.report.parts import training_chart

    folder = without(measured_run, tmp_path / "run", "arrays.npz", "ledger.json", "log.jsonl")
    assert 'id="training"' not in report_document(folder).html
    rows = [
        {"event": "epoch", "network": n, "epoch": e, "train_loss": 3.0 - e / 2 + n, "valid_loss": None}
        for n in (0, 1) for e in (1, 2) for _ in range(2)
    ]  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chart = training_chart(read_run(folder))
    assert chart is not None and 'id="training"' in report_document(folder).html
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.report.parts.figure", lambda draw: draw)
        patch.setattr("lab.report.parts.training_curve", lambda *given, **_: drawn.append(given))
        training_chart(read_run(folder))("light")
    assert drawn[0][:2] == ([1, 2], {"training": [[2.5, 3.5], [2, 3]]}), "a column for each network"


def test_broken_files_are_named(measured_run, undrawn, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(measured_run, folder)
    for name, content in (("arrays.npz", b"PK\x03\x04 cut"), ("ledger.json", b"{"), ("config.yaml", b"a: [")):
        (folder / name).write_bytes(content)
    (folder / "subject.json").write_text("[1, 2]")
    text = Page(build_report(folder).read_text(encoding="utf-8")).text
    for name in ("arrays.npz", "ledger.json", "config.yaml"):
        assert f"{name} cannot be read" in text
    assert "subject.json holds a list" in text


def test_only_metrics(tmp_path):
    (tmp_path / "metrics.json").write_text('{"dataset": "haxby2001", "subject": "sub-01", "n_test": 0}')
    text = Page(build_report(tmp_path).read_text(encoding="utf-8")).text
    assert "holds no score" in text and "unchecked" in text


def test_no_metrics_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no metrics yet") as caught:
        build_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_scores_of_a_set_without_pictures(tmp_path):
    metrics = {"dataset": "haxby2001", "subject": "sub-01", "n_test": 12, "category_accuracy": 0.8,
               "category_accuracy.low": 0.7, "category_accuracy.high": 0.9, "chance.category_accuracy": 0.125,
               "ridge.category_accuracy": 0.75}  # fmt: skip
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    run = read_run(tmp_path)
    assert "category accuracy 0.800 [0.700, 0.900], beside ridge 0.750, chance 0.125." in summary(run)


@pytest.mark.parametrize(
    ("how", "words"), [("simulated", "(8.07 bits per weight, simulated)"), (None, "(8.07 bits per weight)")]
)
def test_bits_in_the_first_sentence_say_how_they_were_computed(measured_run, how, words):
    run = read_run(measured_run)
    run = replace(run, metrics={**run.metrics, "arithmetic": how})
    assert words in summary(run)[0]


def test_a_leak_is_loud(measured_run, undrawn, tmp_path):
    folder = without(measured_run, tmp_path / "run", "arrays.npz", "ledger.json", "log.jsonl")
    for name in ("metrics", "subject"):
        content = json.loads((folder / f"{name}.json").read_text())
        leak = content if name == "metrics" else content["leak"]
        leak["leak_test_in_train"] = 2
        if name == "subject":
            leak["pairs"] = [["test-3", "train-8", 1.0], ["test-5", "train-1", 0.9]]
        (folder / f"{name}.json").write_text(json.dumps(content))
    text = Page(build_report(folder).read_text(encoding="utf-8")).text
    assert "Leak: 2 of 10 test pictures occur in training" in text
    assert "test-3 train-8 1.00" in text
    assert "recall, not decoding" in text


@pytest.mark.parametrize("recorded", [True, False], ids=["as recorded", "of an older run"])
def test_the_leak_line_stands_wherever_a_score_stands(measured_run, undrawn, tmp_path, recorded):
    folder = without(measured_run, tmp_path / "run", "ledger.json", "log.jsonl")
    metrics = json.loads((folder / "metrics.json").read_text()) | {"leak_test_in_train": 2}
    if recorded:
        metrics["leaks"] = "leak check: 2 of 10 test pictures in training (2 exact)"
    (folder / "metrics.json").write_text(json.dumps(metrics))
    run = read_run(folder)
    said = "Leak check: 2 of 10 test pictures in training"
    assert summary(run)[-1].startswith(said) and "recall, not decoding" in summary(run)[-1]
    assert said in run.provenance().sentence()
    text = Page(build_report(folder).read_text(encoding="utf-8")).text
    assert text.count(said) >= 3, "headline and captions"
    group = Page(
        build_group_report([folder, measured_run], tmp_path / "g.html").read_text(encoding="utf-8")
    ).text
    assert "✗ leak check: 2 of 10" in group and "leak check: 0 of 10" in group


def test_a_run_without_a_leak_check_says_so(measured_run, tmp_path):
    folder = without(measured_run, tmp_path / "run", "arrays.npz", "ledger.json", "log.jsonl", "subject.json")
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["leak_test_in_train"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert "these scores are unchecked" in summary(read_run(folder))[-1]


def test_text_from_files_cannot_become_markup(measured_run, undrawn, tmp_path):
    folder = without(measured_run, tmp_path / "run", "arrays.npz", "ledger.json", "log.jsonl")
    subject = json.loads((folder / "subject.json").read_text())
    subject["warnings"] = ["<script>alert(1)</script>"]
    (folder / "subject.json").write_text(json.dumps(subject))
    assert "<script>alert" not in build_report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("subject", [None, "1", "sub-01"])
def test_command_gives_back_the_settings(subject):
    settings = ReconstructConfig(
        dataset="digits69", root="/data/with space", seed=3, subject=subject, noise_seeds=2,
        options={"zscore": "true", "glm": True},
    )  # fmt: skip
    config = settings.model_dump(mode="json")
    words = shlex.split(as_command(config))
    assert words[:3] == ["brainlab", "brain", "reconstruct"] and words[-2:] == ["--out", "runs/again"]
    pairs = list(itertools.pairwise(words[3:-2]))[::2]
    flags = {k[2:].replace("-", "_"): v for k, v in pairs if k != "--set"}
    again = resolve(ReconstructConfig, flags=flags, sets=[v for k, v in pairs if k == "--set"])
    assert config_hash(again) == config_hash(config)
    assert ("--subject" in words) == (subject is not None)


def test_settings_of_another_version_are_written_out():
    words = as_command({"dataset": "digits69", "preset": "gone", "brain": {"a": 1e-5}, "structure": None})
    assert "--set brain.a=1e-05 --set structure=null" in words


def test_sections_name_only_what_exists():
    folder = Path(__file__).resolve().parents[3] / "lab" / "report"
    named = [r for s in yaml.safe_load((folder / "sections.yaml").read_text()) for r in s["reportlets"]]
    assert set(named) == set(_MAKERS) and len(named) == len(set(named))


def test_group_page(simulated_run, measured_run, tmp_path, simulated, measured):
    out = build_group_report([simulated_run, measured_run], tmp_path / "group.html")
    page = Page(out.read_text(encoding="utf-8"))
    assert "Simulated subjects: 1 of 2 runs" in page.text
    assert "different test pictures" in page.text
    links = [load for load in page.loads if load.endswith("report.html")]
    assert len(links) == 2 and all((tmp_path / link).resolve().is_file() for link in links)
    assert not re.search(r"https?://", out.read_text(encoding="utf-8"))
    assert page.text.count("bit-widths simulated") == 1
    again = tmp_path / "again"
    shutil.copytree(measured_run, again)
    plain = json.loads((again / "metrics.json").read_text()) | {
        "recipe": "none",
        "arithmetic": "full precision",
    }
    (again / "metrics.json").write_text(json.dumps(plain))
    alone = group_document([read_run(again)], tmp_path).html
    assert "Decoder in full precision; ridge" in alone and "bit-widths" not in alone
    twice = build_group_report([measured_run, again], tmp_path / "twice.html")
    text = Page(twice.read_text(encoding="utf-8")).text
    assert "Decoder by its recipe (none: not quantized), bit-widths simulated" in text
    assert f"({measured_run.name})" in text and "(again)" in text  # runs of one name are kept apart
    with pytest.raises(InputError, match="no run folders"):
        build_group_report([])


def category_run(folder, accuracy):
    folder.mkdir()
    found = {"dataset": "haxby2001", "subject": "sub001", "pictures": "none", "recipe": "none", "n_test": 96,
             "category.accuracy": accuracy, "category.accuracy.low": accuracy - 0.1, "category.chance": 0.125,
             "category.accuracy.high": accuracy + 0.1, "ridge.category.accuracy": 0.5}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(found))
    return folder


def test_group_page_of_categories_shows_their_accuracy_and_no_empty_pictures(measured_run, tmp_path):
    runs = [category_run(tmp_path / "a", 0.6), category_run(tmp_path / "b", 0.7)]
    text = Page(build_group_report(runs, tmp_path / "g.html").read_text(encoding="utf-8")).text
    for said in ("category accuracy ↑", "0.600", "[0.600, 0.800]", "ridge 0.500, chance 0.125"):
        assert said in text
    assert "No pictures are stored" not in text and "bit-widths" not in text
    mixed = build_group_report([runs[0], measured_run], tmp_path / "m.html")
    text = Page(mixed.read_text(encoding="utf-8")).text
    assert "0.600" in text and "bit-widths simulated" in text and "different test pictures or trials" in text


def test_runs_of_as_many_other_pictures_are_no_ranking(measured_run, tmp_path):
    for name, change in (("turned", lambda a: a[::-1]), ("other", lambda a: 1 - a)):
        shutil.copytree(measured_run, tmp_path / name)
        with np.load(measured_run / "arrays.npz") as stored:
            arrays = dict(stored) | {"stimulus": change(stored["stimulus"])}
        np.savez(tmp_path / name / "arrays.npz", **arrays)
    pages = {
        name: Page(build_group_report([measured_run, tmp_path / name], tmp_path / f"{name}.html").read_text())
        for name in ("turned", "other")
    }
    assert "not a ranking" in pages["other"].text and "not a ranking" not in pages["turned"].text
    assert other_tests(measured_run, tmp_path / "other") and not other_tests(
        measured_run, tmp_path / "turned"
    )


def test_document(tmp_path):
    document = HTMLDocument('<!doctype html><p title="a">x & y</p>', height=300)
    frame = document._repr_html_()
    assert "&lt;p title=&quot;a&quot;&gt;x &amp; y" in frame and 'height="300"' in frame
    assert document.save_as_html(tmp_path / "a.html").read_text(encoding="utf-8") == str(document)


def test_document_of_a_run_writes_nothing(measured_run, undrawn, tmp_path):
    folder = without(measured_run, tmp_path / "run", "arrays.npz", "ledger.json", "log.jsonl")
    assert "<h1>" in report_document(folder).html
    assert not (folder / "report.html").exists()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chromium_opens_it_at_once_without_errors_and_axe_finds_nothing(
    simulated_run, measured_run, simulated, measured, tmp_path, scheme
):
    sync_api = pytest.importorskip("playwright.sync_api")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    group = build_group_report([simulated_run, measured_run], tmp_path / "group.html")
    seconds = {}
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for width, file in ((1440, simulated_run / "report.html"), (390, measured_run / "report.html"),
                            (390, group)):  # fmt: skip
            assert file.stat().st_size < 5e6
            page = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme
            ).new_page()
            said: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            began = time.monotonic()
            page.goto(file.as_uri())
            page.evaluate("Promise.all([...document.images].map(image => image.decode().catch(() => 0)))")
            seconds[file] = time.monotonic() - began
            assert page.evaluate("document.documentElement.scrollWidth") <= width  # only tables scroll
            faults = axe.Axe().run(page).response["violations"]
            serious = [(v["id"], v["nodes"][0]["html"][:200]) for v in faults if v["impact"] in _SERIOUS]
            assert serious == [] and said == []  # a blocked load or a script error would be said
        browser.close()
    assert sorted(seconds.values())[1] < 2, seconds


_SERIOUS = ("serious", "critical")


def test_long_recipe_names_break_before_their_changes_and_stay_escaped() -> None:
    shown = _environment().from_string("{{ name|breaks }}").render(name="a-b+c=<1>+d=2")
    assert shown == "a-b<wbr>+c=&lt;1&gt;<wbr>+d=2"


@pytest.mark.parametrize(("seeds", "words"), [(1, "1 noise seed"), (3, "3 noise seeds")])
def test_a_page_of_bits_explains_only_rows_that_it_has(seeds: int, words: str) -> None:
    """The row "full precision, other noise" takes two noise seeds."""
    rows = [{"recipe": name} for name in ("full precision", "full precision, other noise")[:seeds]]
    data = bits.BitsData(about={"noise_seeds": seeds}, rows=rows, pictures={})
    assert any("other noise" in note for note in bits._notes(data)) == (seeds > 1)
    assert bits._seeds(data.about) == words
