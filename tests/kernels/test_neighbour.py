"""Our `kernels` beside the distribution of the same name on the package index.

The other package is built in a temporary folder: same top-level name, submodules that import each other by
absolute name, names only its own `__init__` exports, a distribution record that diffusers looks up.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def other(tmp_path: Path) -> Path:
    package = tmp_path / "site" / "kernels"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import importlib.metadata as m\n__version__ = m.version('kernels')\n"
        "from kernels.load import get_kernel\nfrom kernels.layer import Mode\n"
        "__all__ = ['get_kernel', 'Mode']\n"
    )
    (package / "load.py").write_text(
        "from kernels.layer import Mode\n\ndef get_kernel(name):\n    return Mode, name\n"
    )
    (package / "layer.py").write_text("class Mode:\n    pass\n")
    info = tmp_path / "site" / "kernels-0.17.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.17.2\n")
    (info / "RECORD").write_text("kernels/__init__.py,,\n")
    return tmp_path / "site"


def python(code: str, *path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


BOTH = """
from diffusers.utils import is_kernels_available
assert is_kernels_available()
import diffusers.models.attention_dispatch
import quant.layers.lowbit
from kernels import get_kernel
import kernels, kernels.layer
from kernels import Mode
from kernels.packing import pack
import torch
assert get_kernel("x") == (Mode, "x") and Mode is kernels.layer.Mode
assert kernels.__version__ == "0.17.2"
assert quant.layers.lowbit.packing.pack(torch.ones(1, 2, dtype=torch.uint8), 4).tolist() == [[0x11]]
try:
    from kernels import no_such_name
except ImportError:
    print(kernels.__file__)
"""


def test_both_work_with_ours_first(repo: Path, other: Path) -> None:
    assert python(BOTH, repo, other) == str(repo / "kernels" / "__init__.py")


def test_both_work_with_theirs_first(repo: Path, other: Path) -> None:
    assert python(BOTH, other, repo) == str(other / "kernels" / "__init__.py")


def test_alone_ours_has_no_foreign_names(repo: Path) -> None:
    code = (
        "import kernels, importlib.util\n"
        "try:\n    from kernels import get_kernel\nexcept ImportError as error:\n    print(error.name)"
    )
    if (
        python("import importlib.metadata as m; print(any(d.name == 'kernels' for d in m.distributions()))")
        == "True"
    ):
        pytest.skip("the other distribution is installed here")
    assert python(code, repo) == "kernels"


def test_no_module_of_ours_hides_one_of_theirs(repo: Path) -> None:
    # submodules of kernels 0.17.2; ours come first on the extended path
    theirs = {
        "_rust",
        "_system",
        "_versions",
        "_windows",
        "archs",
        "backends",
        "benchmark",
        "benchmarks",
        "cli",
        "compat",
        "deps",
        "hf_hub",
        "importer",
        "install",
        "layer",
        "load",
        "locking",
        "python_deps",
        "resolver",
        "status",
        "validate",
        "variants",
        "verify",
    }
    ours = {file.stem for file in (repo / "kernels").glob("*.py")} - {"__init__"}
    assert not ours & theirs
