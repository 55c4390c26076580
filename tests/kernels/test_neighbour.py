"""Our `kernels` beside the distribution of that name on the package index, the real one, in one environment.

Each environment is a fresh folder of packages that sees this one's through a path file; nothing is resolved.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
THEIRS = "kernels==0.17.2"
CHECK_OURS = (
    "import quant.layers.lowbit as door, kernels.products.gemm; assert door.packing.packed_bytes(3, 4) == 2"
)
CHECK_THEIRS = (
    "import kernels, kernels.layer; from kernels import get_kernel, Mode\n"
    "assert kernels.__version__ == '0.17.2'"
)
CHECK_ALONE = (
    "from diffusers.utils import is_kernels_available as diffusers\n"
    "from transformers.utils import is_kernels_available as transformers\n"
    "assert not diffusers() and not transformers()"
)
CHECK_GONE = (
    "try:\n    from kernels import get_kernel\nexcept ImportError:\n    pass\n"
    "else:\n    raise SystemExit('theirs')"
)


class Environment:
    """A fresh environment over the packages of this one."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        packages = folder / "lib" / version / "site-packages"
        (packages / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def pip(self, *arguments: str) -> None:
        command = [str(self.python), "-m", "pip", *arguments]  # which it finds beside; --python starts two
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd="/")
        assert done.returncode == 0, done.stderr[-2000:]

    def install(self, *what: str) -> None:
        self.pip(
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--no-build-isolation",
            "--ignore-installed",
            "--no-compile",
            *what,
        )

    def run(self, code: str) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [self.python, "-P", "-c", code], env=environment, capture_output=True, text=True, timeout=120,
            check=False,
            cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, (code, done.stderr[-2000:])


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Wheel of the other distribution; the test needs the package index once."""
    folder = tmp_path_factory.mktemp("theirs")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), THEIRS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        pytest.skip(f"{THEIRS} cannot be fetched here")
    return str(next(folder.glob("kernels-*.whl")))


@pytest.fixture(scope="module")
def source(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our project as it is built, without the packages that do not matter for this."""
    folder = tmp_path_factory.mktemp("ours")
    for name in ("kernels", "quant"):
        shutil.copytree(repo / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repo / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def ours(source: Path) -> str:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        "dist",
        ".",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=source)
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.rmtree(source / "build", ignore_errors=True)
    return str(next((source / "dist").glob("*.whl")))


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_wheels_in_either_order(tmp_path: Path, ours: str, theirs: str, first: str) -> None:
    env = Environment(tmp_path / "env")
    for wheel in (ours, theirs) if first == "ours" else (theirs, ours):
        env.install(wheel)
    env.run("\n".join((CHECK_OURS, CHECK_THEIRS) if first == "ours" else (CHECK_THEIRS, CHECK_OURS)))
    env.pip("uninstall", "--quiet", "--yes", "kernels" if first == "ours" else "brainit-lab")
    env.run("\n".join((CHECK_OURS, CHECK_ALONE, CHECK_GONE)) if first == "ours" else CHECK_THEIRS)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_editable_beside_their_wheel(tmp_path: Path, source: Path, theirs: str, first: str) -> None:
    env = Environment(tmp_path / "env")
    for wheel in (("-e", str(source)), (theirs,)) if first == "ours" else ((theirs,), ("-e", str(source))):
        env.install(*wheel)
    env.run("\n".join((CHECK_OURS, CHECK_THEIRS) if first == "ours" else (CHECK_THEIRS, CHECK_OURS)))
    env.pip("uninstall", "--quiet", "--yes", "kernels" if first == "ours" else "brainit-lab")
    env.run(f"{CHECK_OURS}\n{CHECK_GONE}" if first == "ours" else CHECK_THEIRS)


def test_no_file_of_ours_is_one_of_theirs(repo: Path, theirs: str) -> None:
    from zipfile import ZipFile

    others = {
        Path(name).parts[1].split(".")[0]
        for name in ZipFile(theirs).namelist()
        if name.startswith("kernels/")
    }
    ours = {path.stem for path in (repo / "kernels").iterdir() if path.name != "__pycache__"}
    assert not ours & others and "__init__" in others
