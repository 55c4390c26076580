"""Controls whose values the settings check, not Gradio: its refusals name no field, or give no reason."""

from __future__ import annotations

from typing import Any


def unchecked(control: Any) -> Any:
    """Return a number or picture that hands on what it was given, as number or as path.

    Parameters
    ----------
    control : gradio component
        One that no answer changes the settings of: Gradio would make it anew, with its own check. That of a
        number names no field, that of a picture says not what is wrong with the file.
    """
    control.preprocess = lambda given: getattr(given, "path", given)
    return control
