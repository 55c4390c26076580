"""The mark through the public commands: made, stored as a file, read back; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab.cli.main import run as command
from lab.errors import InputError, MissingDataError
from lab.jobs import registry
from lab.jobs.contract import Context
from lab.zoo import patterns
from lab.zoo.watermark.files import EXTRACTOR, KEY


def verify(*pictures: Path, **given):  # type: ignore[no-untyped-def]
    settings = registry.settings("watermark verify", {"pictures": pictures, **given})
    return registry.run("watermark verify", settings, Context())


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise with a picture's spectrum, larger than the decoder's pictures and not square."""
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft2(rng.normal(size=(3, 96, 128)), axes=(1, 2))
    reach = np.hypot(np.fft.fftfreq(96)[:, None] * 96, np.fft.rfftfreq(128)[None] * 128)
    picture = np.fft.irfft2(spectrum / np.maximum(reach, 1) ** 1.3, axes=(1, 2))
    picture = np.clip(0.5 + 0.2 * picture / picture.std(), 0, 1)
    file = tmp_path_factory.mktemp("given") / "photograph.png"
    Image.fromarray((picture * 255).astype(np.uint8).transpose(1, 2, 0)).save(file)
    return file


def test_a_marked_picture_is_known_from_its_file_and_others_are_not(photograph: Path, tmp_path: Path) -> None:
    settings = registry.settings(
        "watermark embed", {"pictures": (photograph,), "out": tmp_path, "device": "cpu"}
    )
    made = registry.run("watermark embed", settings, Context())
    file = tmp_path / "photograph.png"
    assert Image.open(file).size == (64, 64)
    assert made.rows[0]["verdict"] == "marked" and made.rows[0]["psnr_db"] > 25
    found = verify(file, photograph)
    assert [row["verdict"] for row in found.rows] == ["marked", "not marked"]
    assert found.needed == 41 and found.rows[0]["p_value"] < 1e-6 < found.rows[1]["p_value"]
    other = found.rows[0]["read"].translate(str.maketrans("01", "10"))
    assert verify(file, message=other).rows[0]["verdict"] == "not marked"
    assert verify(file, rate=1e-15).rows[0]["verdict"] == "too few bits to say"
    assert "41 of 48" in found.rule() and found.tables()


def test_drawn_pictures_carry_the_mark(tmp_path: Path) -> None:
    given = {"samples": 2, "seed": 3, "out": tmp_path, "device": "cpu", "key": KEY}
    made = registry.run("watermark embed", registry.settings("watermark embed", given), Context())
    assert len(list(tmp_path.glob("sample-3-*.png"))) == 2
    assert all(row["matches"] >= 38 for row in made.rows)
    # the next step reads with the key that was given, not with the shipped one
    assert made.next_step().endswith(f"sample-3-000.png --key {KEY}")


def test_patterns_are_not_called_marked(tmp_path: Path) -> None:
    drawn, _ = patterns.draw(30, seed=9)
    files = []
    for index, array in enumerate(drawn.permute(0, 2, 3, 1).numpy()):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(array).save(files[-1])
    assert not [row for row in verify(*files).rows if row["verdict"] == "marked"]


def test_files_that_are_no_pictures_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, text, deep, webp = (tmp_path / name for name in ("small.png", "text.png", "deep.png", "web.png"))
    Image.new("RGB", (31, 64)).save(small)
    text.write_text("no picture")
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(deep)
    Image.new("RGB", (64, 64)).save(webp, format="WEBP")
    for file, says in (
        (small, "31x64; sides must be 32 to 4096"), (text, "not a picture, or is damaged"),
        (deep, "8 bits a channel"), (webp, "is WEBP; pictures are read as PNG or JPEG"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            verify(file)
    with pytest.raises(MissingDataError, match="no picture at"):
        verify(tmp_path / "none.png")
    assert command(["watermark", "verify", str(small)]) == 2
    assert command(["watermark", "verify", str(tmp_path / "none.png")]) == 4
    out, err = capsys.readouterr()
    assert out == "" and len(err.strip().splitlines()) == 2


def test_a_dry_run_reads_every_picture(photograph: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(photograph.read_bytes()[:-2000])
    for name, more in (("watermark verify", {}), ("watermark embed", {"out": tmp_path / "marked"})):
        settings = registry.settings(name, {"pictures": (photograph, bad), **more})
        for call in (lambda n, s: registry.run(n, s, Context()), registry.dry_run):
            with pytest.raises(InputError, match=r"bad\.png is not a picture, or is damaged"):
                call(name, settings)
    settings = registry.settings("watermark verify", {"pictures": (photograph,), "message": "1010"})
    with pytest.raises(ValueError, match="has 4 bits"):
        registry.dry_run("watermark verify", settings)
    assert not (tmp_path / "marked").exists()


def test_damaged_and_foreign_keys_are_refused(photograph: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.safetensors"
    key.write_bytes(KEY.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated or not a safetensors file"):
        verify(photograph, key=key)
    reader = tmp_path / "reader.safetensors"
    reader.write_bytes(EXTRACTOR.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        verify(photograph, extractor=reader)
    with pytest.raises(ValueError, match="not a watermark's extractor"):
        verify(photograph, extractor=KEY)
    with pytest.raises(ValueError, match="has 4 bits; this extractor reads 48"):
        verify(photograph, message="1010")
    raw = bytearray(EXTRACTOR.read_bytes())
    raw[-2:] = b"\x00\x3c"  # another extractor: one weight differs
    reader.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match="trained against another extractor"):
        verify(photograph, extractor=reader)


def test_embed_wants_pictures_or_samples(photograph: Path) -> None:
    for given in ({}, {"pictures": (photograph,), "samples": 2}):
        with pytest.raises(ValueError, match="not both"):
            registry.run("watermark embed", registry.settings("watermark embed", given), Context())


def test_adapters_are_listed() -> None:
    listed = registry.run("list", registry.settings("list", {"what": "adapters"}), Context())
    assert [row["name"] for row in listed.rows] == ["watermark"]
    card = registry.run(
        "list", registry.settings("list", {"what": "adapters", "pattern": "watermark"}), Context()
    )
    assert "# " in card.card


def test_embed_writes_over_nobodys_pictures(photograph: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    Image.new("RGB", (90, 70), "red").save(mine / "holiday.png")
    other = tmp_path / "holiday.png"
    other.write_bytes(photograph.read_bytes())
    before = (mine / "holiday.png").read_bytes()
    for picture, says in ((mine / "holiday.png", "is one of the pictures"), (other, "is there already")):
        settings = registry.settings("watermark embed", {"pictures": (picture,), "out": mine})
        for call in (lambda s: registry.run("watermark embed", s, Context()),
                     lambda s: registry.dry_run("watermark embed", s)):  # fmt: skip
            with pytest.raises(InputError, match=rf"holiday\.png {says}.*choose another --out"):
                call(settings)
    assert (mine / "holiday.png").read_bytes() == before
    drawn = mine / "sample-0-000.png"
    Image.new("RGB", (90, 70), "red").save(drawn)
    settings = registry.settings("watermark embed", {"samples": 1, "out": mine})
    with pytest.raises(InputError, match=r"sample-0-000\.png is there already"):  # before anything is drawn
        registry.dry_run("watermark embed", settings)
    again = registry.settings("watermark embed", {"pictures": (other,), "out": tmp_path / "marked"})
    for _ in range(2):  # the same command writes the same
        registry.run("watermark embed", again, Context())


def test_transparent_pictures_are_refused_and_opaque_ones_read(photograph: Path, tmp_path: Path) -> None:
    whole = Image.open(photograph).convert("RGBA")
    whole.save(tmp_path / "opaque.png")
    whole.putalpha(Image.new("L", whole.size, 0))
    whole.save(tmp_path / "hidden.png")
    assert verify(tmp_path / "opaque.png").rows
    with pytest.raises(InputError, match="100 % of its pixels are transparent"):
        verify(tmp_path / "hidden.png")
