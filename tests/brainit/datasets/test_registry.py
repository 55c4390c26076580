from __future__ import annotations

import subprocess
import sys

import pytest

from brainit import datasets
from brainit.errors import InputError, MissingDataError


def test_listing_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; from brainit import datasets; [datasets.describe(n) for n in datasets.list_datasets()];"
        "print([m for m in ('numpy', 'torch', 'nibabel', 'nilearn', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", datasets.list_datasets())
def test_cards_say_what_a_person_needs(name):
    about = datasets.describe(name)
    assert about["name"] == name and "module" not in about
    for key in ("title", "terms", "size", "source", "how"):
        assert about[key], key
    assert about["simulated"] == (name == "simulated")
    assert callable(datasets.card(name).adapter().load)


def test_unknown_name_and_option():
    with pytest.raises(InputError, match="did you mean 'digits69'") as caught:
        datasets.open("digit69")
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="no option 'speed'; allowed: nan, zscore, range, order"):
        datasets.open("digits69", speed=3)


def test_missing_folder_says_how_to_get_the_data(tmp_path):
    with pytest.raises(MissingDataError, match="ChangdeDu/DGMM") as caught:
        datasets.open("digits69", tmp_path / "no")
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    with pytest.raises(MissingDataError, match="cannot be downloaded automatically"):
        datasets.fetch("digits69", tmp_path)


def test_default_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINLAB_DATA", str(tmp_path))
    assert datasets.default_root("digits69") == tmp_path / "digits69"


def test_subject_can_be_named_by_number(simulation):
    assert datasets.open("simulated", simulation, subject="2").name == "sub-02"
    assert datasets.open("simulated", simulation, subject="sub-02").name == "sub-02"
    with pytest.raises(InputError, match="found: sub-01, sub-02"):
        datasets.open("simulated", simulation, subject="7")


def test_check_of_a_simulation_that_is_not_made_writes_nothing(tmp_path):
    (finding,) = datasets.check("simulated", tmp_path / "none")
    assert finding.severity == "info" and not (tmp_path / "none").exists()


def test_haxby_fetch_turns_network_failure_into_one_line(monkeypatch, tmp_path):
    import nilearn.datasets

    def offline(**_):
        raise OSError("no route to host")

    monkeypatch.setattr(nilearn.datasets, "fetch_haxby", offline)
    with pytest.raises(InputError, match="could not be downloaded"):
        datasets.fetch("haxby2001", tmp_path / "h")
