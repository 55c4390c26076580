"""The page of the watermark, without a browser: its two examples, its verdicts, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("gradio")

from lab.app import watermark_page


def test_the_examples_are_told_apart_and_bad_input_is_one_sentence(tmp_path: Path) -> None:
    files = []
    for name, array in zip(("marked", "unmarked"), watermark_page.examples(), strict=True):
        files.append(str(tmp_path / f"{name}.png"))
        Image.fromarray(array).save(files[-1])
    words, bits = watermark_page.judged(files[0], "", 1e-6)
    assert words.startswith("### Marked") and "41 of 48" in words and bits.count("\n") == 2
    words, _ = watermark_page.judged(files[1], "", 1e-6)
    assert words.startswith("### Not marked")
    words, _ = watermark_page.judged(files[0], "0x000000000000", 1e-6)
    assert words.startswith("### Not marked")
    for given in ((None, "", 1e-6), (files[0], "101", 1e-6), (files[0], "", 0.0)):
        with pytest.raises(ValueError, match=r"."):
            watermark_page.judged(*given)


def test_a_refusal_takes_the_place_of_the_verdict(tmp_path: Path) -> None:
    """Else the last picture's verdict would stand beside this one."""
    (bad := tmp_path / "bad.png").write_bytes(b"no picture")
    words, bits = watermark_page.said(str(bad), "", 1e-6)
    assert words.startswith("### Nothing can be said\nbad.png is not a picture") and not bits.visible
    Image.fromarray(watermark_page.examples()[0]).save(good := tmp_path / "good.png")
    words, _ = watermark_page.said(str(good), "0101", 1e-6)
    assert "has 4 bits; this extractor reads 48" in words and "Marked" not in words
    assert "Marked" in watermark_page.said(str(good), "", 1e-6)[0]
    assert watermark_page.said(None, "", 1e-6)[0] == watermark_page.EMPTY
