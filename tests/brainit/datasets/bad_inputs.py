"""The table of bad input: each is read right, with a warning, or refused in one line with its exit code."""

from __future__ import annotations

import pickle

import numpy as np
from PIL import Image

from tests.brainit.datasets.bad_rows import Row, read
from tests.brainit.datasets.bad_volumes import VOLUMES
from tests.brainit.datasets.conftest import mat_parts
from tests.brainit.datasets.inputs import (
    array,
    beside_macos,
    bright,
    codes_equal,
    content,
    cut,
    damaged_pictures,
    events,
    files,
    first,
    folder,
    hdf5_cut,
    jpeg,
    link_to_nothing,
    mat,
    one_odd,
    parquet,
    png,
    stimuli,
    stimuli_renamed,
    stored,
    text_beside,
    two_mat_files,
    without,
)

P = mat_parts()
LONG = P["stimTrn"].astype(float) / 255
TRANSPARENT = np.full((8, 8), 9, np.uint8)

# fmt: off
TABLE: dict[str, Row] = {
    # .mat files: damage and form
    "mat cut short": Row(mat(0.5), "cut short"),
    "mat of its first bytes only": Row(mat(0.01), "cannot be read"),
    "mat empty": Row(content("a.mat", b""), "is empty"),
    "mat is text": Row(content("a.mat", b"not a matrix\n" * 40), "cannot be read"),
    "mat is a pickle": Row(content("a.mat", pickle.dumps({"fmriTrn": [1]})), "cannot be read"),
    "mat is a web page": Row(content("a.mat", b"<!DOCTYPE html><html>"), "is a web page"),
    "mat is an LFS pointer": Row(
        content("a.mat", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
            "git lfs pull", 4
    ),
    "mat is an annex pointer": Row(content("a.mat", b"/annex/objects/MD5E-s9--x.mat\n"),
        "datalad get a.mat", 4),
    "mat is an annex link": Row(link_to_nothing, "datalad get a.mat", 4),
    "mat beside a macOS file": read(beside_macos, lambda s: s.n_trials == 16),
    "mat is a macOS file": Row(content("a.mat", b"\0\5\x16\7" + bytes(99)), "resource file of macOS"),
    "HDF5 cut short": Row(hdf5_cut, "cannot be read"),
    "variable missing": Row(mat(stimTest=None), "stimTest is missing; found: "),
    "pictures not square": Row(
        mat(stimTrn=np.full((12, 35), 9, np.uint8), stimTest=np.full((4, 35), 9, np.uint8)),
            "35 pixels; allowed: a"
    ),
    "rows differ": Row(mat(stimTrn=P["stimTrn"][:-1]), "fmriTrn has 12 rows (trials) and stimTrn has 11"),
    "voxels differ": Row(mat(fmriTest=P["fmriTest"][:, 1:]), "fmriTrn has 9 columns and fmriTest has 8"),
    "labels of another number": Row(mat(labelTest=np.ones((3, 1))), "labelTest has 3 labels for 4 trials"),
    "a label NaN": Row(mat(**without(P, "labelTrn", 3, np.nan)),
        "labelTrn holds nan; allowed: whole numbers"),
    "a label of a half": Row(mat(**without(P, "labelTrn", 3, 1.5)), "labelTrn holds 1.5"),
    "labels of training only": read(mat(labelTest=None), lambda s: s.labels is None, "labels are left out"),
    "a struct for a matrix": Row(mat(fmriTrn={"a": 1}), "allowed: a matrix"),
    "one training trial": Row(
        mat(fmriTrn=np.ones((1, 9)), stimTrn=np.zeros((1, 49)), labelTrn=np.ones((1, 1))),
            "fmriTrn has 1 trial"
    ),
    "two files": Row(two_mat_files, "holds 2 .mat files"),
    "digits69 without its file": Row(lambda t: ("digits69", t), "holds no digit69_28x28.mat; get", 4),
    # .mat files: betas
    "NaN": Row(mat(**without(P, "fmriTrn", (2, 5), np.nan)),
        "1 of 9 voxels hold NaN or infinite values (first: voxel 5)"),
    "infinite": Row(mat(**without(P, "fmriTest", (0, 4), np.inf)), "(first: voxel 4)"),
    "NaN dropped": read(mat(**without(P, "fmriTrn", (2, 5), np.nan)), lambda s: s.n_voxels == 8,
        "dropped 1", nan="drop"),
    "nothing changes": Row(mat(fmriTrn=np.ones((12, 9))), "no voxel of 9 changes"),
    # pictures: range by type
    "one pixel of 1.0000001": read(mat(**without({"stimTrn": LONG, "stimTest": 0}, "stimTrn", (0, 0),
        1.0000001),
        stimTest=P["stimTest"] / 255.0), bright, "clipped 1 of 588 values"),
    "overshoot of resizing": read(mat(stimTrn=LONG * 1.04, stimTest=P["stimTest"] / 255.0), bright,
        "clipped"),
    "float 0..255": Row(mat(stimTrn=LONG * 255, stimTest=P["stimTest"] * 1.0),
        "allowed: 0..1; say which values are"),
    "float 0..255, stated": read(mat(stimTrn=LONG * 255, stimTest=P["stimTest"] * 1.0), bright,
        range="0..255"),
    "train 0..1, test 0..255, one type": Row(mat(stimTrn=LONG, stimTest=P["stimTest"] * 1.0),
        "range=LOW..HIGH"),
    "train float, test uint8": read(mat(stimTrn=LONG), bright,
        "stimTrn is float64, read as 0..1; stimTest is uint8"),
    "float -1..1": Row(mat(stimTrn=LONG * 2 - 1, stimTest=P["stimTest"] / 255.0), "range=LOW..HIGH"),
    "float -1..1, stated": read(
        mat(stimTrn=LONG * 2 - 1, stimTest=P["stimTest"] / 127.5 - 1),
        lambda s: abs(s.images()[0].mean() - LONG[0].mean()) < 1e-6, range="-1..1"),
    "int16": Row(mat(stimTrn=P["stimTrn"].astype("i2"), stimTest=P["stimTest"].astype("i2")),
        "do not say their range"),
    "one NaN pixel": Row(mat(**without(P, "stimTrn", (0, 0), np.nan)), "1 of 588 picture values are NaN"),
    "a range of nonsense": Row(mat(), "range is 'bright'; allowed: auto, or LOW..HIGH",
        options={"range": "bright"}),
    "a range upside down": Row(mat(), "range is '255..0'", options={"range": "255..0"}),
    "one range for two types": Row(mat(stimTrn=LONG), "one range cannot be meant for both",
        options={"range": "0..1"}),
    "divided twice": read(mat(stimTrn=LONG / 255, stimTest=P["stimTest"] / 65025), lambda s: True,
        "nearly black"),
    "uint8 of 0 and 1": Row(stored(lambda x: (x > 127).astype("u1")),
        "uint8 pictures with values from 0 to 1"),
    "uint8 of 0 and 1, stated": read(stored(lambda x: (x > 127).astype("u1")), bright, range="0..1"),
    "bool": read(stored(lambda x: x > 127), bright),
    "uint16 of 8 bits": Row(stored(lambda x: x.astype("u2")), "may be of several ranges"),
    "uint16 of 16 bits": read(stored(lambda x: x.astype("u2") * 257), codes_equal),
    "float in npz": read(stored(lambda x: x / 255), codes_equal),
    "range stated in npz": read(
        stimuli(lambda f: {**f, "images": f["images"].astype("f4"), "range": [0, 255]}), codes_equal),
    "range in npz of nonsense": Row(stimuli(lambda f: {**f, "range": [0, 1, 2]}), "allowed: two numbers"),
    "complex pictures": Row(stored(lambda x: x * 1j), "is complex128; allowed: numbers"),
    # pictures: names and files
    "an id twice": Row(
        stimuli(lambda f: {"ids": [*f["ids"], "p0"], "images": np.concatenate([f["images"],
            f["images"][:1]])}),
        "stimulus 'p0' is there twice: row 0 and row 20"),
    "ids as bytes": read(stimuli(lambda f: {**f, "ids": f["ids"].astype("S")}), codes_equal),
    "ids that are fractions": Row(stimuli(lambda f: {**f, "ids": np.arange(20) + 0.5}),
        "a stimulus is called 0.5"),
    "fewer ids than pictures": Row(stimuli(lambda f: {**f, "ids": f["ids"][1:]}),
        "19 names for 20 pictures"),
    "no pictures in the npz": Row(stimuli(lambda f: {"ids": f["ids"]}),
        "array 'images' is missing; found: ids"),
    "pictures of four channels": Row(stored(lambda x: np.stack([x] * 4, -1)), "allowed: (n, H, W)"),
    "the same name in two folders": Row(
        files(lambda d, i, a: [png(d, f"{s}/{i}", a) for s in "ab"]),
            "stimulus 'p0' is there twice: a/p0.png and b/p0"),
    "the same name with two endings": Row(
        files(lambda d, i, a: [png(d, i, a), (d / f"{i}.jpg").write_bytes(jpeg(a))]), "p0.jpg and p0.png"),
    "npz and picture files": Row(folder(lambda r: png(r / "stimuli", "p0", TRANSPARENT)), "keep one form"),
    "16-bit PNG": read(files(lambda d, i, a: png(d, i, a.astype("u2") * 257)), codes_equal),
    "1-bit PNG": read(files(lambda d, i, a: Image.fromarray(a > 127).save(d / f"{i}.png")), bright),
    "one grey picture among colour": read(
        files(lambda d, i, a: png(d, i, a if i == "p3" else np.stack([a] * 3, -1))),
        lambda s: s.images().shape[1:] == (8, 8, 3) and np.ptp(s.images()[3], axis=-1).max() == 0,
            "1 of 20 pictures are grey"),
    "transparent": Row(
        one_odd(lambda a: Image.fromarray(np.dstack([a, a, a, a]))),
            "p3.png: 100 % of its pixels are transparent"),
    "opaque RGBA": read(one_odd(lambda a: Image.fromarray(np.dstack([a, a, a, a * 0 + 255]))),
        bright,
        "19 of 20 pictures are grey"),
    "a transparent colour": Row(one_odd(lambda a: Image.fromarray(a * 0 + 7), transparency=7),
        "are transparent"),
    "turned by EXIF": Row(one_odd(Image.fromarray, "jpg",
        exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
        "EXIF orientation asks to turn it"),
    "another size": Row(one_odd(lambda a: Image.fromarray(a).resize((9, 9))),
        "pictures of 2 sizes, such as 8x8"),
    "several frames": Row(
        one_odd(lambda a: Image.fromarray(a), "webp", save_all=True, append_images=[Image.new("L", (8,
            8))]),
        "holds 2 pictures"),
    "macOS files among pictures": read(
        files(lambda d, i, a: [png(d, i, a), (d / f"._{i}.png").write_bytes(b"\0\5\x16\7")]), codes_equal),
    "a picture is a pointer": Row(
        files(lambda d, i, a: (d / f"{i}.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")),
        "git lfs", 4),
    "a picture of no bytes": Row(files(lambda d, i, a: (d / f"{i}.png").write_bytes(b"")),
        "is empty (0 bytes)"),
    "pickled stimuli": Row(stimuli(lambda f: {**f, "ids": np.array([{}], dtype=object)}),
        "pickled objects, which are not"),
    "ids of no characters": Row(stimuli(lambda f: {**f, "ids": np.full(20, 0x7FFFFFFF, "u4").view("U1")}),
        "damaged or cut short"),
    "stimuli cut short": Row(folder(lambda r: cut(first(r, "stimuli.npz"))), "damaged or cut short"),
    "a picture gone": Row(stimuli(lambda f: {k: v[:-1] for k, v in f.items()}), "no picture for 1 of 20",
        4),
    "no folder of pictures": read(
        folder(lambda r: (r / "stimuli").rename(r / "Bilder")), lambda s: s.stimuli is None,
            "pictures are not known"),
    # text
    "events with a BOM": read(events(lambda t: t.encode("utf-8-sig")), codes_equal),
    "events in UTF-16": read(events(lambda t: t.encode("utf-16")), codes_equal),
    "events in UTF-16 without a mark": Row(events(lambda t: t.encode("utf-16-le")),
        "UTF-16 without a byte order mark"),
    "events with CR LF": read(events(lambda t: t.replace("\n", "\r\n")), codes_equal),
    "events in latin-1": Row(events(lambda t: t.replace("p3\t", "ö3\t").encode("latin-1")),
        "line 5: byte 0xf6 is not UTF-8"),
    "decomposed letters": read(folder(lambda r: [
        first(r, "*_events.tsv").write_text(first(r, "*_events.tsv").read_text().replace("p3\t",
            "o\u03083\t")),
        stimuli_renamed(r, "p3", "\u00f63")]), codes_equal),
    "events with commas": Row(events(lambda t: t.replace("\t", ",")),
        "separate columns by tabs, not by commas"),
    "a line with a cell too many": Row(events(lambda t: t.replace("p3\t", "p3\t\t")),
        "line 5 has 4 cells and the header 3"),
    "a column twice": Row(events(lambda t: t.replace("trial_type", "split", 1)),
        "two columns are called 'split'"),
    "an open quotation": Row(events(lambda t: t.replace("p3\t", '"p3\t')), "line"),
    "an unknown split": Row(events(lambda t: t.replace("\ttrain", "\tvalidate")),
        "split is 'validate'; allowed: train, test"),
    "a split n/a": Row(events(lambda t: t.replace("train", "n/a", 1)), "line 2: split is 'n/a'"),
    "a stimulus n/a": Row(events(lambda t: t.replace("p3\t", "n/a\t")), "line 5 has no stimulus_id"),
    "a label n/a": read(events(lambda t: t.replace("\tcat", "\tn/a", 1)), lambda s: s.labels is None,
        "1 of 20 trials have no"),
    "a run n/a": read(events(lambda t: t.replace("trial_type", "run").replace("cat", "n/a")),
        lambda s: set(s.run) == {1},
        "10 of 20 trials have no"),
    "a run of words": Row(events(lambda t: t.replace("trial_type", "run")),
        "run is 'cat'; allowed: a whole number"),
    "fewer events than volumes": Row(events(lambda t: t.rsplit("\n", 2)[0]),
        "10 volumes and its events 9 rows"),
    "no training trials": Row(folder(lambda r: [p.write_text(p.read_text().replace("\ttrain", "\ttest"))
        for p in r.rglob("*_events.tsv")]), "0 training trials"),
    "events gone": Row(folder(lambda r: first(r, "*_events.tsv").unlink()), "needs its events", 4),
    "description of no JSON": Row(text_beside("dataset_description.json", "{"), "is not valid JSON"),
    "description a list": Row(text_beside("dataset_description.json", "[1]"),
        "holds a list; allowed: names and values"),
    "Simulated a word": Row(text_beside("dataset_description.json", '{"Simulated": "false"}'),
        "Simulated is 'false'"),
    "warnings in the description": read(
        text_beside("dataset_description.json", '{"warnings": "none", "units": 3, "Name": ["a"]}'),
        lambda s: s.info["warnings"] == [] and s.info["units"] != 3 and s.info["source"] == '["a"]'),
    "a region n/a": Row(text_beside("sub-01/a_dseg.tsv", "index\tname\nn/a\tV1\n", "sub-01/a_dseg.nii.gz"),
        "index is 'n/a'"),
    "a region twice": Row(text_beside("sub-01/a_dseg.tsv", "index\tname\n1\tV1\n2\tV1\n",
        "sub-01/a_dseg.nii.gz"), "region 'V1'"),
    "regions in latin-1": Row(
        text_beside("sub-01/a_dseg.tsv", "index\tname\n1\tgrün\n".encode("latin-1"),
            "sub-01/a_dseg.nii.gz"), "line 2"),
    "regions without names": Row(text_beside("sub-01/a_dseg.tsv", "code\n1\n", "sub-01/a_dseg.nii.gz"),
        "column index, name"),
    **VOLUMES,
    # pictures to draw from
    "unreadable parquet": Row(lambda t: ("draw", cut(parquet(image=[b"x"] * 40)(t)[1])),
        "cannot be read as parquet"),
    "parquet without pictures": Row(parquet(label=[1, 2]), "column 'image' is missing; found: label"),
    "parquet of text": Row(parquet(image=["a"] * 40), "allowed: encoded bytes"),
    "parquet of noise": Row(parquet(image=[b"nothing"] * 40), "cannot be read as a picture"),
    "parquet missing": Row(lambda t: ("draw", t / "none.parquet"), "does not exist", 4),
    "picture folder missing": Row(lambda t: ("draw", t / "none"), "does not exist", 4),
    "no picture in the folder": Row(lambda t: ("draw", t), "holds no pictures", 4),
    "too few pictures": Row(array(np.zeros((3, 8, 8))), "holds 3 pictures and 4 are needed"),
    "pictures of five channels": Row(array(np.zeros((9, 8, 8, 5))), "allowed: (n, H, W)"),
    "pictures beyond white": Row(array(np.full((9, 8, 8), 300.0)),
        "save them as uint8 in 0..255, or as floats in 0..1"),
    "pictures damaged": Row(damaged_pictures, ".png cannot be read as a picture"),
    # settings of a simulation
    "too few voxels": Row(lambda t: ("preset", {"n_voxels": 3}), "n_voxels is 3; allowed: 20 to 8000"),
    "more shared than shown": Row(lambda t: ("preset", {"n_shared": 999}), "n_shared is 999"),
    "a setting of no name": Row(lambda t: ("preset", {"speed": 1}), "no setting 'speed'"),
}
# fmt: on
