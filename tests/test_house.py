"""The house rules that no linter checks (those are in `make lint`): sizes, circles, copies, lean imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests import house

PACKAGES = ("kernels", "quant", "brainit", "lab")
HARD_LIMIT = 500
MEAN_LIMIT = 150
FOLDER_LIMIT = 14
FILE_LIMIT = 16 * 2**20
WEIGHTS_LIMIT = 50e6  # about 48 MB: the checkout must stay light
WEIGHT_SUFFIXES = {".safetensors", ".npz"}
FORBIDDEN = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError")


def tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280, check=False)


def sources(repo: Path) -> list[Path]:
    return [file for package in PACKAGES for file in sorted((repo / package).rglob("*.py"))]


def tracked(repo: Path) -> list[Path]:
    listed = run("git", "ls-files", "-z", cwd=repo)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [repo / name for name in listed.stdout.split("\0") if name and (repo / name).is_file()]


def test_no_file_is_too_long(repo: Path) -> None:
    lengths = {file.relative_to(repo): len(file.read_text().splitlines()) for file in sources(repo)}
    assert not {str(file): n for file, n in lengths.items() if n > HARD_LIMIT}
    filled = [n for n in lengths.values() if n]
    assert sum(filled) / len(filled) < MEAN_LIMIT


def test_no_folder_is_too_full(repo: Path) -> None:
    counts = Counter(str(file.parent.relative_to(repo)) for file in sources(repo))
    assert not {folder: n for folder, n in counts.items() if n > FOLDER_LIMIT}


def test_no_file_imports_itself_by_a_detour(repo: Path) -> None:
    """Imports inside functions count; those for type checkers alone do not."""
    graph = house.imports(repo, sources(repo))
    assert "lab.jobs.contract" in graph["lab.jobs.doctor"] and len(graph) == len(sources(repo))
    assert house.circles(graph) == []


def test_circles_and_copies_are_found(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    block = "\n".join(f"    x = x * {n}" for n in range(house.RUN))
    for name, other in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")):
        text = f"def f(x):\n    from p import {other}\n"
        (tmp_path / "p" / f"{name}.py").write_text(text + (block if name in "ad" else ""))
    files = sorted(tmp_path.rglob("*.py"))
    assert house.circles(house.imports(tmp_path, files)) == [["p.a", "p.b", "p.c"]]
    assert house.copies(tmp_path, files) == ["p/a.py:1 = p/d.py:1"]


def test_nothing_stands_twice(repo: Path) -> None:
    assert house.copies(repo, sources(repo)) == []


def test_no_drawer_for_everything(repo: Path) -> None:
    assert not [f for f in sources(repo) if f.stem in {"utils", "util", "helpers", "misc", "common"}]


def test_nothing_is_left_for_later(repo: Path) -> None:
    found = [
        f"{file.relative_to(repo)}:{number}"
        for file in sources(repo)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert not found


def test_no_print_in_libraries(repo: Path) -> None:
    call = re.compile(r"^\s*print\(")
    assert not [f for f in sources(repo) if any(call.match(line) for line in f.read_text().splitlines())]


LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


def test_every_page_links_to_what_is_there(repo: Path) -> None:
    pages = [file for file in tracked(repo) if file.suffix == ".md"]
    links = [(page, link) for page in pages for link in LINK.findall(page.read_text(encoding="utf-8"))]
    assert len(links) > 50
    assert not [
        f"{page.relative_to(repo)}: {link}" for page, link in links if not (page.parent / link).exists()
    ]


def test_checkout_stays_light(repo: Path) -> None:
    files = tracked(repo)
    assert not [str(file) for file in files if file.stat().st_size >= FILE_LIMIT]
    weights = sum(file.stat().st_size for file in files if file.suffix in WEIGHT_SUFFIXES)
    assert weights <= WEIGHTS_LIMIT


IMPORT_WATCH = """
import sys, threading, os, pathlib
before = set(os.environ.items()), threading.active_count(), set(p.name for p in pathlib.Path.cwd().iterdir())
import lab, quant, brainit, kernels
after = set(os.environ.items()), threading.active_count(), set(p.name for p in pathlib.Path.cwd().iterdir())
assert before == after, (before, after)
heavy = {"torch", "triton", "gradio", "matplotlib", "diffusers", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""


def test_imports_are_lean_and_free_of_side_effects(tmp_path: Path) -> None:
    result = run(sys.executable, "-P", "-c", IMPORT_WATCH, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "" and result.stderr == ""


def test_help_imports_only_the_command_line_itself(tmp_path: Path) -> None:
    code = (
        "import sys, lab.cli.main, lab.cli.interrupt\nfrom lab.cli import commands\n"
        "assert commands.tree().commands\n"
        "print(*{'torch', 'numpy', 'pydantic', 'rich', 'yaml'} & set(sys.modules))"
    )
    result = run(sys.executable, "-P", "-c", code, cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.strip() == ""


def test_help_is_quick(tmp_path: Path) -> None:
    def once() -> float:
        began = time.perf_counter()
        result = run(tool("brainlab"), "--help", cwd=tmp_path)
        assert result.returncode == 0 and "Usage: brainlab" in result.stdout
        return time.perf_counter() - began

    # The best of a few: a busy machine or a cold disk is no fault of the program.
    limit = 0.5 if os.cpu_count() and os.cpu_count() > 1 else 1.0
    assert min(once() for _ in range(5)) < limit
