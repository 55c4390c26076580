"""Properties of what readers decide: ranges, geometry, names, tables; any input, not chosen ones."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainit.datasets.files import clean, ranges
from brainit.datasets.files.events import Event, number_sessions, read_events
from brainit.datasets.files.geometry import same_grid
from brainit.datasets.files.text import read_table
from brainit.errors import InputError

HERE = Path("one.nii"), Path("two.nii")
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TYPES = ["cat", "face", "rest"]
NAME = st.text(
    st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp"), blacklist_characters='"'),
    min_size=1,
    max_size=8,
)


@QUICK
@given(
    st.integers(0, 2**32 - 1), st.floats(0.5, 1.0), st.sampled_from(["uint8", "uint16", "float32", "bool"])
)
def test_a_picture_comes_back_whatever_type_carries_it(seed, top, kind):
    picture = np.random.default_rng(seed).random((3, 5, 5)) * top
    picture[0, 0, :2] = 0, top
    stored = {
        "uint8": lambda: np.rint(picture * 255).astype("u1"),
        "uint16": lambda: np.rint(picture * 65535).astype("u2"),
        "float32": lambda: picture.astype("f4"),
        "bool": lambda: picture > 0.25,
    }[kind]()
    (read,), warnings = ranges.to_unit({"x": stored}, "file")
    wanted = stored.astype(float) if kind == "bool" else picture
    np.testing.assert_allclose(read, wanted, atol=0.5 / 255 + 1e-6)
    assert not warnings and read.dtype == np.float32


@QUICK
@given(st.floats(-1000, 1000), st.floats(1e-3, 1000), st.integers(0, 2**32 - 1))
def test_a_stated_range_is_kept_to(black, span, seed):
    white = black + span
    unit = np.random.default_rng(seed).random((2, 4, 4))
    (read,), _ = ranges.to_unit({"x": black + span * unit}, "file", f"{black!r}..{white!r}")
    np.testing.assert_allclose(read, unit, atol=1e-4)


@QUICK
@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.floats(allow_nan=False, width=32))
def test_floats_are_read_as_they_are_or_refused(one, other):
    """Never rescaled: a float picture comes back within the overshoot of 5 %, or not at all."""
    stack = np.array([[[one, other]]])
    try:
        (read,), warnings = ranges.to_unit({"x": stack}, "file")
    except InputError:
        assert stack.min() < -0.05 or stack.max() > 1.05
        return
    assert np.abs(read - stack).max() <= 0.0500001 and bool(warnings) >= bool(
        (read != stack.astype("f4")).any()
    )


def affine(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    out = np.eye(4)
    out[:3, :3] = turn * rng.uniform(1, 4, 3)
    out[:3, 3] = rng.uniform(-90, 90, 3)
    return out


def image(at: np.ndarray) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(np.zeros((5, 6, 7), np.uint8), at)


@QUICK
@given(st.integers(0, 2**32 - 1), st.sampled_from(range(12)), st.floats(1e-7, 20), st.booleans())
def test_grids_are_equal_exactly_where_all_voxels_are(seed, element, by, up):
    one, other = affine(seed), affine(seed)
    row, column = divmod(element, 4)
    other[row, column] += by if up else -by
    reach = (4, 5, 6, 1)[column]  # index of the far corner along this axis
    apart = by * reach
    if 0.04 < apart < 0.06 or abs(np.linalg.det(other[:3, :3])) < 1e-3:
        return
    if apart <= 0.04:
        same_grid(image(one), HERE[0], image(other), HERE[1])
    else:
        with pytest.raises(InputError, match=r"grid|orientation|apart"):
            same_grid(image(one), HERE[0], image(other), HERE[1])


@QUICK
@given(st.integers(0, 2**32 - 1), st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_a_turned_grid_is_never_taken_for_the_same(seed, order, signs):
    """The same places in space, stored along other axes, are other arrays and must not be stacked."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff

    ornt = np.array(list(zip(order, signs, strict=True)), float)
    old = nibabel.Nifti1Image(np.zeros((5, 5, 5), np.uint8), affine(seed))
    at = old.affine @ inv_ornt_aff(ornt, old.shape)
    new = nibabel.Nifti1Image(apply_orientation(np.asarray(old.dataobj), ornt), at)
    if list(order) == [0, 1, 2] and signs == (1, 1, 1):
        same_grid(old, HERE[0], new, HERE[1])
        return
    with pytest.raises(InputError, match=r"orientation|apart"):
        same_grid(old, HERE[0], new, HERE[1])


@QUICK
@given(st.lists(NAME, min_size=1, max_size=12))
def test_each_name_stands_for_one_thing(names):
    """Names that a file system or an editor may write differently (composed or not) are one name."""
    composed = [clean.as_name(name) for name in names]
    assert composed == [clean.as_name(unicodedata.normalize("NFD", name)) for name in names]
    pairs = [(name, str(k)) for k, name in enumerate(composed)]
    if len(set(composed)) == len(composed):
        assert list(clean.each_once(pairs, "thing")) == composed
    else:
        with pytest.raises(InputError, match="is there twice"):
            clean.each_once(pairs, "thing")


@QUICK
@given(st.lists(st.from_regex(r"[0-9]{1,3}|[a-z]{1,4}", fullmatch=True), min_size=1, max_size=6))
def test_sessions_get_numbers_of_their_own(labels):
    try:
        numbers = number_sessions(labels)
    except InputError:
        digits = [label for label in set(labels) if label.isdecimal()]
        assert len({int(d) for d in digits}) < len(digits)
        return
    assert len(set(numbers.values())) == len(set(labels))


@QUICK
@given(
    st.lists(st.tuples(NAME, NAME), min_size=1, max_size=6),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_tables_read_back_in_any_encoding(tmp_path, rows, encoding, ending):
    rows = [(a.strip() or "x", b.strip() or "x") for a, b in rows]
    path = tmp_path / "t.tsv"
    path.write_bytes(ending.join(["one\ttwo", *("\t".join(r) for r in rows)]).encode(encoding))
    read = [(row["one"], row["two"]) for row in read_table(path, ("one", "two"))]
    assert read == [tuple(unicodedata.normalize("NFC", cell) for cell in row) for row in rows]


@QUICK
@given(
    st.lists(
        st.tuples(st.floats(0, 1e4), st.floats(0, 1e3), st.sampled_from(["cat", "face", "rest"])), max_size=6
    )
)
def test_events_read_back_or_are_refused(tmp_path, rows):
    path = tmp_path / "events.tsv"
    path.write_text("onset\tduration\ttrial_type\n" + "".join(f"{a!r}\t{b!r}\t{c}\n" for a, b, c in rows))
    shown = [Event(*row) for row in rows if row[2] != "rest"]
    if shown:
        assert read_events(path, ("cat", "face")) == shown
    else:
        with pytest.raises(InputError, match=r"holds no events|holds nothing but rest"):
            read_events(path, ("cat", "face"))


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_one_line(tmp_path, raw):
    path = tmp_path / "t.tsv"
    path.write_bytes(raw)
    try:
        rows = read_table(path, ("onset",))
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert all(row["onset"] is not None for row in rows)
