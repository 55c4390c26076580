"""Controls whose values the settings check, not Gradio: its refusals name no field, or are never shown."""

from __future__ import annotations

from typing import Any


def unchecked(control: Any) -> Any:
    """Return a slider, number or picture that hands on what it was given, as number or as path.

    Parameters
    ----------
    control : gradio component
        Gradio's check of a slider's range answers nothing outside of its queue, that of a number names no
        field, that of a picture says not what is wrong with the file.
    """
    control.preprocess = lambda given: getattr(given, "path", given)
    return control
