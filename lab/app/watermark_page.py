"""Watermark: a picture in, a verdict with its p-value out; and pictures to try it on."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lab.app.controls import unchecked
from lab.app.work import answer, sentence
from lab.errors import InputError
from lab.jobs.contract import Context

EMPTY = "Drop a PNG or JPEG file, or take an example."
UNREAD = "### Nothing can be said\nbefore the picture has been read."


def judged(file: str | None, message: str, rate: float) -> tuple[str, str]:
    """Return the verdict on a picture as Markdown, and the bits that were read.

    Raises
    ------
    InputError
        No picture, none that can be read, a message of the wrong length, a rate that is none.
    """
    from lab import zoo
    from lab.jobs import registry

    if not file:
        raise InputError("there is no picture yet: drop a PNG or JPEG file")
    zoo.prepare()
    given = {"pictures": (file,), "rate": rate, "message": message.strip() or None}
    found: Any = registry.run("watermark verify", registry.settings("watermark verify", given), Context())
    row = found.rows[0]
    words = (
        f"### {row['verdict'].capitalize()}\n"
        f"{row['matches']} of {found.bits} bits match; an unmarked picture matches as many with a chance "
        f"of **{row['p_value']:.2g}**. {escape(found.rule(), quote=False)}\n\n"
        "A match says that the marked decoder's texture is there, not who put it there: it can be lifted "
        "from one picture to another."
    )
    return words, _beside(row["read"], row["message"])


def said(picture: str | None, message: str, rate: float) -> tuple[str, Any]:
    """Return the verdict's words and bits; a refusal takes their place: no verdict stands by another picture.

    Parameters
    ----------
    picture, message, rate
        As `judged`; None: no picture yet.
    """
    if not picture:
        return EMPTY, gr.Code("", visible=False)
    try:
        words, read = judged(picture, message, rate)
    except Exception as fault:
        reason = sentence(fault).replace(str(picture), Path(picture).name)
        return f"### Nothing can be said\n{escape(reason, quote=False)}", gr.Code("", visible=False)
    return words, gr.Code(read, visible=True)


def _beside(read: str, message: str) -> str:
    same = "".join("=" if a == b else "x" for a, b in zip(read, message, strict=True))
    return f"read     {read}\nmessage  {message}\n         {same}"


@lru_cache(maxsize=1)
def examples() -> tuple[Any, Any]:
    """Draw one latent and decode it marked and unmarked: two uint8 pictures (64, 64, 3)."""
    import torch

    from lab import zoo

    zoo.prepare()
    from lab.zoo.sampling import SamplerSettings, draw_noise, sample
    from lab.zoo.watermark.files import AUTOENCODER, KEY, marked_autoencoder

    null, sampler = zoo.null_tokens("dit-64"), SamplerSettings(steps=8, guidance=1.0)
    drawn = sample(zoo.load("dit-64"), null[None], null, draw_noise(1, 7), sampler)
    made = []
    for model in (marked_autoencoder(KEY), zoo.load(AUTOENCODER)):
        with torch.inference_mode():
            picture = model.decode(drawn)[0]
        made.append((picture * 255).round().byte().permute(1, 2, 0).numpy())
    return made[0], made[1]


def build() -> None:
    """Lay the page out."""
    gr.Markdown(
        "Was a picture made by the marked decoder? Its message bits are read back and compared; the verdict "
        "stands beside the chance that it is wrong.",
        elem_classes="lead",
    )
    with gr.Row():
        with gr.Column(scale=2):
            picture = unchecked(gr.Image(
                label="PNG or JPEG, sides from 32 pixels", type="filepath", sources=["upload"],
                elem_id="watermark-picture", height=300, image_mode=None, format="png",
                buttons=["download", "fullscreen"],
            ))  # fmt: skip
            with gr.Row():
                marked = gr.Button("Example: marked", elem_id="watermark-marked")
                unmarked = gr.Button("Example: not marked", elem_id="watermark-unmarked")
        with gr.Column(scale=3):
            message = gr.Textbox(
                label="Message to look for (0s and 1s, or hex after 0x); empty: the shipped key's",
                max_lines=1, elem_id="watermark-message",
            )  # fmt: skip
            rate = unchecked(gr.Number(1e-6, label="False-positive rate", elem_id="watermark-rate"))
            verdict = gr.Markdown(EMPTY, elem_id="watermark-verdict")
            bits = gr.Code(label="Bits (= right, x wrong)", interactive=False, lines=3, visible=False)

    @answer
    def watermark(picture: str | None, message: str, rate: float) -> Any:
        """Say whether a picture carries the watermark."""
        return said(picture, message, rate)

    shown: dict[str, Any] = {"concurrency_limit": None}
    given = [picture, message, rate]
    # first the old verdict goes: reading a large picture takes a moment
    cleared = picture.change(
        lambda: (UNREAD, gr.Code("", visible=False)), None, [verdict, bits], api_visibility="private", **shown
    )
    cleared.then(watermark, given, [verdict, bits], api_name="watermark", **shown)
    for field in (message, rate):
        field.submit(watermark, given, [verdict, bits], api_visibility="private", **shown)
    marked.click(answer(lambda: examples()[0]), None, picture, api_visibility="private", **shown)
    unmarked.click(answer(lambda: examples()[1]), None, picture, api_visibility="private", **shown)
