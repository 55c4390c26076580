"""What there is: methods, presets, models, datasets, kernels, settings. Read from files, without torch."""

from __future__ import annotations

import ast
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.checks import known
from lab.jobs.contract import Context, Table, line, setting


class Settings(contract.Settings):
    """List methods, adapters, presets, models, datasets, kernels, settings.

    Without a word: what can be listed. ``brainlab list methods NAME`` shows the method's card.
    """

    what: str | None = setting(
        None, "methods, adapters, presets, models, datasets, kernels or settings", argument=True
    )
    pattern: str = setting("*", "only names that match, such as '*w4*'", argument=True)


class Result(contract.Result):
    """Records with at least ``name``; of a single method its card too."""

    rows: list[dict[str, Any]]
    card: str = ""
    columns: tuple[str, ...] = ()

    def plain(self) -> Any:
        """Return the rows, with the card if there is one."""
        return [{**row, "card": self.card} for row in self.rows] if self.card else self.rows

    def tables(self) -> list[Table]:
        """Return the rows, or the card."""
        if self.card:
            return [line(self.card)]
        return [Table(self.rows, self.columns)]


def run(settings: Settings, context: Context) -> Result:
    """List things of one kind whose name matches a shell-style pattern."""
    context.check()
    if settings.what is None:
        return Result(rows=[{"name": name, "see": f"brainlab list {name}"} for name in _LISTS])
    known("list", settings.what, _LISTS, "brainlab list")
    everything = _LISTS[settings.what]()
    rows = [row for row in everything if fnmatchcase(row["name"], settings.pattern)]
    if not rows and not set(settings.pattern) & set("*?["):
        near = get_close_matches(settings.pattern, [row["name"] for row in everything], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"wildcards may be used: '*{settings.pattern}*'"
        raise InputError(
            f"{settings.pattern!r} matches none of {len(everything)} {settings.what}; {hint} "
            f"(see: brainlab list {settings.what})"
        )
    one = settings.what in _CARDS and len(rows) == 1 and settings.pattern != "*"
    card = _card(settings.what, rows[0]["name"]) if one else ""
    return Result(rows=rows, card=card, columns=_COLUMNS.get(settings.what, ()))


def _card(kind: str, name: str) -> str:
    file = _home("quant") / kind / name / "CARD.md"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def preset_names() -> list[str]:
    """Names of all quantization presets."""
    import quant

    return quant.list_presets()


def presets() -> list[dict[str, Any]]:
    """All quantization presets: method, whose policy (the paper's or the common one), title."""
    import quant

    found = [quant.get_preset(name) for name in preset_names()]
    return [{"name": p.name, "method": p.method, "policy": p.policy, "title": p.title} for p in found]


def methods() -> list[dict[str, Any]]:
    """All quantization methods: paper, bits, what they need, which hardware runs them natively."""
    import quant

    return [_described(quant.get_method(name)) for name in quant.list_methods()]


def adapters() -> list[dict[str, Any]]:
    """All adapters, which add to a model instead of quantizing it."""
    from quant import registry

    return [_described(registry.get_adapter(name)) for name in registry.list_adapters()]


def _described(method: Any) -> dict[str, Any]:
    info = method.info.model_dump()
    info.pop("seconds_per_million_weights", None)
    return {"name": method.name, **info, "whole_run": method.whole_run, "native": list(info["native"])}


def models() -> list[dict[str, Any]]:
    """All models whose weights are here, and their size."""
    from lab import zoo

    rows = []
    for name in zoo.names():
        size = round(zoo.weight_file(name).stat().st_size / 1e6, 2)
        rows.append({"name": name, "megabytes": size, "what": zoo.summary(name)})
    return rows


def datasets() -> list[dict[str, Any]]:
    """All datasets."""
    from brainit import datasets as found

    rows = (found.describe(name) for name in found.list_datasets())
    return [{key: row[key] for key in ("name", "simulated", "size", "title")} for row in rows]


def kernels() -> list[dict[str, Any]]:
    """All kernels: what each computes, and whether it has a Triton form beside the reference."""
    home = _home("lab").parent / "kernels"  # of ours: the name is shared with another distribution
    rows = []
    for file in sorted(home.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "\n@operation(" in text:
            what = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
            triton = "_kernels import" in text or '"triton"' in text  # its own, or other operations' kernels
            rows.append({"name": file.stem, "triton": triton, "what": what})
    return rows


def settings() -> list[dict[str, Any]]:
    """Every setting of a reconstruction run with its default, what is allowed and its meaning."""
    from lab.decoding.settings import ReconstructConfig
    from lab.runs.settings import describe_settings

    return describe_settings(ReconstructConfig)


_CARDS = ("methods", "adapters")
_COLUMNS = {
    "adapters": ("name", "title", "paper"),
    "methods": ("name", "bits", "needs_calibration", "needs_gradients", "native"),
}
"""What a person sees of a list where there is more."""
_LISTS = {
    "methods": methods,
    "adapters": adapters,
    "presets": presets,
    "models": models,
    "datasets": datasets,
    "kernels": kernels,
    "settings": settings,
}


def _home(package: str) -> Path:
    spec = find_spec(package)  # finds a top-level package without running it
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"package {package!r} is not installed; pip install brainit-lab brings it back")
    return Path(next(iter(spec.submodule_search_locations)))
