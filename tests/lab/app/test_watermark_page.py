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
