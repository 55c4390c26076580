"""What the pages show, without a browser: answers, refusals, runs, cancelling, the command."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from lab.app import command, places, runs_page, work  # noqa: E402
from lab.app.kernels import page as kernels_page  # noqa: E402
from lab.errors import InputError  # noqa: E402
from lab.jobs.contract import Context  # noqa: E402
from lab.runs.folder import Run  # noqa: E402


def _someone(name: str) -> Any:
    return SimpleNamespace(session_hash=name)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of these tests are functions of a test, which cannot be sent to another process."""
    monkeypatch.setattr(work, "WORKER", SimpleNamespace(run=lambda job, context: job(context)))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, text in (
        ("a", "seed: 1\n"),
        ("deep/b", "seed: 2\n"),
        ("<img src=x onerror=alert(1)>", "x: 1\n"),
    ):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text(text)
    (tmp_path / "runs/a/metrics.json").write_text('{"pixcorr": 0.25, "same": 1}')
    (tmp_path / "runs/a/done.json").write_text("{}")
    (tmp_path / "runs/deep/b/metrics.json").write_text('{"pixcorr": 0.5, "same": 1}')
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/config.yaml").write_text("password: 1\n")
    return tmp_path / "runs"


def test_runs_are_listed_with_their_state(home: Path) -> None:
    rows = {row[0]: row[2] for row in places.run_rows(home)}
    assert rows["a"] == "finished" and rows["deep/b"] == "stopped" and len(rows) == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("model: dit-64\npart: null\nrecipe: rtn-w4a4+group=32\n", "dit-64, rtn-w4a4+group=32"),
        ("dataset: simulated\nsubject: 'sub-01'\nrecipe: rtn-w8a8\nbrain:\n  model:\n    width: 1\n",
         "simulated sub-01, rtn-w8a8"),
        ("run:\n  dataset: mat\n  subject: s1\n  recipe: none\nrecipes:\n- a\n", "mat s1"),
        ("dataset: mat\nsubject: null\nrecipe: none\n", "mat, none"),
        ("seed: 1\n", ""),
    ],
)  # fmt: skip
def test_a_run_says_what_it_is_of(home: Path, settings: str, words: str) -> None:
    (home / "a/config.yaml").write_text(settings)
    assert {row[0]: row[3] for row in places.run_rows(home)}["a"] == words


def test_a_quantized_model_shows_its_ledger(home: Path) -> None:
    import quant
    from lab import zoo

    ledger = quant.quantize_(zoo.load("dit-64"), "rtn-w8a8")
    (home / "a/ledger.json").write_text(json.dumps(ledger.to_dict()))
    frame, _, _ = runs_page.opened(home, "a")
    assert "<th>layers quantized</th><td>81</td>" in frame and "simulated" in frame


def test_a_run_that_makes_its_data_first_is_listed_and_says_how_far_it_is(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = SimpleNamespace(alive=True, last="pictures (1 of 5)")
    monkeypatch.setattr(work, "_STAYING", {"app-simulated": job})
    assert runs_page.listed(home)[0][:3] == ["app-simulated", "-", "running"]
    assert runs_page.opened(home, "app-simulated")[0] == "<p>At work: pictures (1 of 5)</p>"
    job.alive = False
    assert len(runs_page.listed(home)) == 3
    with pytest.raises(InputError, match="not a run below"):
        runs_page.opened(home, "app-simulated")


def test_a_comparison_with_its_page_is_finished(home: Path) -> None:
    (home / "deep/b/results.csv").write_text("")
    assert places.state(home / "deep/b") == "stopped"
    (home / "deep/b/report.html").write_text("")
    assert places.state(home / "deep/b") == "finished"


def test_a_comparison_that_was_stopped_while_recipes_were_added_is_not_finished(home: Path) -> None:
    for name in ("results.csv", "report.html", "log.jsonl"):
        (home / "deep/b" / name).write_text("")
    assert places.state(home / "deep/b") == "finished"  # an earlier version's, without a mark
    with Run.open(home / "deep/b", {"seed": 2}) as run:
        run.finish()
        assert run.finished
        run.reopen()
    assert places.state(home / "deep/b") == "stopped"


def test_a_run_at_work_is_found(home: Path) -> None:
    from lab.runs.lock import FolderLock

    with FolderLock(home / "deep/b"):
        assert {row[0]: row[2] for row in places.run_rows(home)}["deep/b"] == "running"


@pytest.mark.parametrize("name", ["../secret", "/etc", "nothing", "", "a\0b", "x" * 5000])
def test_what_lies_outside_or_is_no_run_is_refused(home: Path, name: str) -> None:
    with pytest.raises(InputError, match="not a run below"):
        runs_page.opened(home, name)


def test_a_run_without_report_and_names_that_look_like_html(home: Path) -> None:
    frame, config, scores = runs_page.opened(home, "deep/b")
    assert "no report yet" in frame and config == "seed: 2\n" and "0.5" in scores
    odd = "<img src=x onerror=alert(1)>"
    (home / odd / "report.html").write_text("<script>parent.x = 1</script>")
    frame, _, _ = runs_page.opened(home, odd)
    assert "<img" not in frame and "<script" not in frame
    assert 'sandbox="allow-scripts"' in frame  # of another origin: it cannot reach the app


def test_two_runs_are_compared_by_what_differs(home: Path) -> None:
    assert runs_page.differences(home, "a", "deep/b") == [["pixcorr", "0.25", "0.5", "+0.25"]]


def test_errors_are_one_sentence_and_never_html() -> None:
    @work.answer
    def fails(name: str) -> None:
        raise InputError(f"<b>{name}</b> is wrong;\n choose another")

    with pytest.raises(gr.Error) as fault:
        fails("x")
    assert fault.value.message == "&lt;b&gt;x&lt;/b&gt; is wrong; choose another"


def test_a_long_recipe_in_a_refusal_loses_its_middle_and_nothing_else() -> None:
    recipe = "svdquant-w4a4+" + "+".join(f"nosuch{k}=1" for k in range(60))
    words = work.sentence(InputError(f"recipe '{recipe}': no setting 'nosuch0'; see: brainlab list methods"))
    assert words.startswith("recipe 'svdquant-w4a4+nosuch0") and words.endswith("see: brainlab list methods")
    assert len(words) < 200 and "no setting 'nosuch0'" in words


def test_a_page_shows_progress_then_its_result_and_refuses_before_it_starts() -> None:
    def prepare() -> work.Prepared:
        return (lambda context: context.progress(1, 2, "half") or 5), lambda found: [found]

    steps = list(work.stream(prepare, 1, "page", _someone("s")))
    assert steps[0][0] == work.STARTING and steps[-1][0] == "Done." and steps[-1][2] == 5
    assert any("half (1 of 2" in step[0] for step in steps)

    def refuses() -> work.Prepared:
        raise InputError("no such model '*'")

    refused = work.stream(refuses, 1, "page", _someone("s"))
    assert next(refused)[0] == r"**Not done:** no such model '\*'"  # an earlier job's "Done." goes
    with pytest.raises(gr.Error, match="no such model"):
        next(refused)


def test_a_job_that_fails_says_so_where_its_progress_stood() -> None:
    def breaks(context: Context) -> None:
        context.progress(1, 2, "half")
        raise InputError("layer 'a_b' is <gone>")

    job = work.stream(lambda: (breaks, lambda found: []), 0, "page", _someone("s"))
    said = []
    with pytest.raises(gr.Error, match="is &lt;gone&gt;"):
        for words, *_ in job:
            said.append(words)
    assert said[-1] == r"**Not done:** layer 'a\_b' is &lt;gone&gt;"


def test_a_run_goes_on_without_its_page_is_made_once_and_can_be_stopped() -> None:
    def endless(context: Context) -> None:
        while True:
            context.progress(1, 2, "quantizing")
            time.sleep(0.01)

    def start(name: str) -> Any:
        return work.stream(lambda: (endless, lambda found: []), 0, "apply", _someone(name), stays="a-run")

    first = start("me")
    assert next(first)[0] == work.STARTING and "quantizing" in next(first)[0]
    assert work.at_work() == ["a-run"]
    with pytest.raises(gr.Error, match="a-run is being made already"):
        list(start("other"))
    first.close()  # the connection is gone
    work.ended("me")
    time.sleep(0.05)
    running = work._STAYING["a-run"]
    assert running.alive and work.progress_of("a-run") == "quantizing (1 of 2)"
    assert running._events.qsize() < 10  # nobody takes them away any more
    assert work.stop_run("a-run").startswith("Stopping")
    running._thread.join(2)
    assert not running.alive and work.progress_of("a-run") == ""
    assert "makes no run" in work.stop_run("a-run")


def test_what_a_session_waited_for_ends_with_it() -> None:
    def endless(context: Context) -> None:
        while True:
            context.progress(1, 2, "drawing")
            time.sleep(0.01)

    job = work.stream(lambda: (endless, lambda found: []), 0, "draw", _someone("gone"))
    next(job), next(job)
    work.ended("gone")
    assert [step[0] for step in job][-1].startswith("Stopped")


def test_a_group_page_is_a_run_too(home: Path) -> None:
    (home / "deep/group.html").write_text("<h1>over all</h1>")
    assert ["deep", "group", "finished"] in [row[:3] for row in places.run_rows(home)]
    frame, _, scores = runs_page.opened(home, "deep")
    assert "over all" in frame and scores == "{}"


def test_strangers_open_no_folder_of_this_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert places.local(str(home)) == str(home) and places.local("dit-64") == "dit-64"
    monkeypatch.setattr(places, "STRANGERS", ["0.0.0.0"])
    assert places.local("dit-64") == "dit-64"
    with pytest.raises(InputError, match="on loopback only"):
        places.local(str(home))


def test_a_session_stops_its_own_job_and_no_other() -> None:
    def endless(context: Context) -> None:
        while True:
            context.progress(0, 1, "drawing")
            time.sleep(0.01)

    def start(name: str) -> Any:
        return work.stream(lambda: (endless, lambda found: []), 0, "draw", _someone(name))

    mine, other = start("me"), start("other")
    assert next(mine)[0] == next(other)[0] == work.STARTING
    next(mine)
    again = start("me")
    with pytest.raises(gr.Error, match="still at work"):
        next(again)
    cancel = work.canceller("draw")
    assert cancel(_someone("nobody")) == work.NOTHING
    began = time.monotonic()
    assert cancel(_someone("me")) == gr.skip()
    assert [step[0] for step in mine][-1].startswith("Stopped") and time.monotonic() - began < 1
    assert "drawing" in next(other)[0] or "waiting" in next(other)[0]
    cancel(_someone("other"))
    assert [step[0] for step in other][-1].startswith("Stopped")


def test_kernels_are_shown_beside_bf16_with_the_device(tmp_path: Path) -> None:
    rows = kernels_page.measured()
    table, words = kernels_page.of_shape(rows, kernels_page.shapes(rows)[0])
    assert table[0][0] == "bf16" and table[0][2] == "1.000" and "Native" in words and "H200" in words
    assert kernels_page.measured(tmp_path) == []  # an installation without the repository: no such page
    with pytest.raises(InputError, match="was not measured"):
        kernels_page.of_shape(rows, "1x1x1")


def test_the_command_warns_when_others_can_come_in() -> None:
    assert command.exposed(command.Settings()) == ""
    assert "give --auth" in command.exposed(command.Settings(host="0.0.0.0"))
    assert "plain HTTP" in command.exposed(command.Settings(host="0.0.0.0", auth="me:secret"))
    assert command.login("me:se:cret") == ("me", "se:cret") and command.login("") is None
    for words in ("me", ":x", "me:"):
        with pytest.raises(InputError, match="USER:PASSWORD") as fault:
            command.login(words)
        assert words not in str(fault.value).replace("USER:PASSWORD", "") or len(words) < 3


def test_a_rounding_is_answered_from_what_was_seen_in_under_100_ms() -> None:
    from lab.app import inspect_page
    from lab.jobs.models import whatif

    settings = whatif.Settings(bits=4)
    inspect_page.rounding(settings)
    began = time.process_time()
    for _ in range(5):
        figure, numbers = inspect_page.rounding(settings)
    assert (time.process_time() - began) / 5 < 0.1
    assert "simulated" in numbers and len(figure.to_json()) < 100_000
    assert "2 samples at 5 timesteps" in inspect_page.caption_of("dit-64", "").sentence()
    largest = inspect_page.layer_rows("dit-64")[0][0]
    assert list(inspect_page.named("dit-64", "")) == [[largest, ""]]
    answers = inspect_page.named("dit-64", "attn1.to_quay")
    kept, words = next(answers)  # beside the box
    assert "layer" not in kept and "attn1.to\\_quay" in words
    assert words.count("attn1.to\\_q") >= 3 and "nearest names: " in words
    with pytest.raises(gr.Error, match="is not in this model"):
        next(answers)


def test_a_link_to_a_run_takes_that_runs_settings_where_it_names_none(trained_run: Path) -> None:
    from lab.app.brain import page
    from lab.jobs.brain import decode

    asked = decode.Settings(folder=Path("run"), guidance=5)
    found = page.completed(trained_run.parent, asked)
    assert (found.guidance, found.strength, found.steps) == (5, 0.5, 4)
