"""Forms made from a job's `Settings`, and a job that runs below its form with progress and Cancel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any, Literal, get_args, get_origin

import ipywidgets as w

from lab.errors import explain
from lab.jobs import registry
from lab.jobs.contract import Settings
from lab.jobs.running import Running

WIDE = w.Layout(width="95%")
_STYLE = {"description_width": "110px"}


def control(model: type[Settings], name: str, value: Any) -> Any:
    """Return the control of one field, from its type and bounds."""
    field = model.model_fields[name]
    about: dict[str, Any] = {
        "description": name.replace("_", " "), "tooltip": field.description or "",
        "style": _STYLE, "layout": WIDE,
    }  # fmt: skip
    kind = field.annotation
    inner = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is Literal:
        return w.Dropdown(options=get_args(kind), value=value, **about)
    bounds = model.model_json_schema()["properties"][name]
    low, high = (bounds.get(edge) for edge in ("minimum", "maximum"))
    if kind is int and low is not None and high is not None and high < 10_000:
        return w.IntSlider(value, low, high, continuous_update=False, **about)
    if kind is float and low is not None and high is not None:
        return w.FloatSlider(value, min=low, max=high, step=0.05, continuous_update=False, **about)
    if kind is bool:
        return w.Checkbox(value, **about)
    if kind in (int, float):
        return (w.IntText if kind is int else w.FloatText)(value, **about)
    if value is None and inner:
        return w.Text("", placeholder="the run's", continuous_update=False, **about)
    return w.Text(_text(value), continuous_update=False, **about)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as an HTML table; what they hold is text."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{escape(str('-' if row.get(n) is None else row[n]))}</td>" for n in names)
        + "</tr>"
        for row in rows
    )
    return f'<table style="font-size:90%"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


class Words(w.HTML):
    """HTML that a viewer without widgets, such as a code host's, shows too."""

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        found = super()._repr_mimebundle_(**kwargs)
        data, about = found if isinstance(found, tuple) else (found or {}, {})
        return {**data, "text/html": self.value}, about


class Debounced:
    """Call a function once, a moment after the last of several changes.

    Parameters
    ----------
    function : callable
        Without arguments.
    seconds : float
        How long nothing must change.
    """

    def __init__(self, function: Callable[[], Any], seconds: float = 0.15) -> None:
        self._function, self._seconds = function, seconds
        self._timer: threading.Timer | None = None

    def __call__(self, *_: Any) -> None:
        """Note a change."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self._seconds, self._function)
        self._timer.daemon = True
        self._timer.start()

    def wait(self) -> None:
        """Return when the last change was answered."""
        if self._timer is not None:
            self._timer.join()


class JobForm(w.VBox):
    """A job's settings as controls, Run and Cancel, its progress, and what it gives.

    Parameters
    ----------
    job : str
        Name in `lab.jobs.registry`.
    given : mapping
        Settings to begin with.
    names : iterable of str
        Fields that get a control.
    """

    def __init__(self, job: str, given: Mapping[str, Any], names: Iterable[str]) -> None:
        self.job, self._given = job, dict(given)
        start: Any = registry.settings(job, self._given)
        self.controls = {name: control(type(start), name, getattr(start, name)) for name in names}
        self.run_button = w.Button(description="Run", button_style="primary")
        self.cancel_button = w.Button(description="Cancel", disabled=True)
        self.status, self.preview, self.shown = w.HTML(), w.VBox(), w.VBox()
        self.result: Any = None
        self._running: Running | None = None
        self._thread: threading.Thread | None = None
        self.run_button.on_click(lambda _: self.start())
        self.cancel_button.on_click(lambda _: self.cancel())
        buttons = w.HBox([self.run_button, self.cancel_button, self.status])
        super().__init__([*self.controls.values(), buttons, self.preview, self.shown])

    def settings(self) -> Settings:
        """Return what the controls say.

        Raises
        ------
        InputError
            One line: the setting, its value, what is allowed.
        """
        said = {name: box.value for name, box in self.controls.items() if box.value != ""}
        return registry.settings(self.job, {**self._given, **said})

    def start(self) -> JobForm:
        """Run; returns at once."""
        try:
            settings = self.settings()
        except Exception as fault:
            self._say(explain(fault).message)
            return self
        self._running = Running(lambda context: registry.run(self.job, settings, context))
        self.run_button.disabled, self.cancel_button.disabled = True, False
        self._thread = threading.Thread(target=self._follow, args=(self._running,), daemon=True)
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Stop within a second."""
        if self._running is not None:
            self._running.cancel()

    def wait(self) -> Any:
        """Return the result when it is there (None if it was stopped or refused)."""
        if self._thread is not None:
            self._thread.join()
        return self.result

    def show(self, result: Any) -> list[Any]:
        """Return what stands below the form once the job is done."""
        return [Words(table(part.rows)) for part in result.tables()]

    def _say(self, words: str) -> None:
        self.status.value = escape(words)

    def _follow(self, running: Running) -> None:
        try:
            for kind, what in running.follow():
                if kind == "progress":
                    self._say(what)
                elif kind == "preview":
                    self._say(f"{what.what}: step {what.step} of {what.steps}")
                    self.preview.children = [w.HBox([picture(image, 96) for image in what.images])]
                elif kind == "done":
                    self.result, self.preview.children = what, []
                    self.shown.children = self.show(what)
                    self._say("Done.")
                elif kind == "cancelled":
                    self._say("Stopped.")
                else:
                    self._say(explain(what).message)
        finally:
            self.run_button.disabled, self.cancel_button.disabled = False, True


def picture(pixels: Any, width: int) -> Any:
    """Return uint8 pixels (H, W, 3) as an image of some width on the page, edges kept."""
    import io

    from PIL import Image

    buffer, found = io.BytesIO(), Image.fromarray(pixels)
    times = max(1, width // found.width)
    found.resize((found.width * times, found.height * times), Image.Resampling.NEAREST).save(buffer, "PNG")
    return w.Image(value=buffer.getvalue(), format="png", width=width)
