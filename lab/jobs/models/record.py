"""Job behind ``brainlab record``: sample a model of one's own, and keep what it saw for other commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import InputError, MissingDataError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, setting
from lab.jobs.models.plan import OfModel
from lab.jobs.spelling import as_command
from lab.models.devices import choose_device

if TYPE_CHECKING:
    from torch import Tensor, nn

_CONFIG = "scheduler_config.json"
_TENSORS = ("conditions", "null_condition")
_MOST_CLASSES = 1 << 30


class Settings(OfModel):
    """Record full-precision sampling of a model of your own.

    Inspect, quantize, compare, allocate and sensitivity look at it with --recording. Half of the samples
    calibrate, 30 in 100 train, the rest are for measuring. Shipped denoisers record themselves.
    """

    model: str = setting(
        ..., "folder of a diffusers model or pipeline, safetensors file, or a hub name", argument=True
    )
    out: Path = setting(..., "folder; the same command goes on in it after a stop", short="-o")
    scheduler: str = setting(
        "",
        "class of diffusers (DDIMScheduler), or a folder with a scheduler_config.json; empty: the pipeline's",
    )
    conditions: Path | None = setting(
        None, "safetensors file with a tensor 'conditions', a row a sample (text tokens), and "
        "'null_condition' for guidance; without it class labels are drawn in turn",
    )  # fmt: skip
    shape: tuple[int, ...] = setting(
        (), "C,H,W of a sample, or C,F,H,W of a clip, where the model's config does not say it"
    )
    samples: int = setting(64, "samples; with --conditions as many as there are", ge=4, le=100_000)
    steps: int = setting(20, "sampling steps", ge=1, le=1000)
    guidance: float = setting(1.0, "classifier-free guidance; 1 is none", ge=0, le=30)
    batch: int = setting(16, "samples at a time", ge=1)
    seed: int = setting(0, "fixes the starting noise", ge=0)
    device: Device = setting("auto", "where the model runs")


class Result(contract.Result):
    """What was recorded, and where."""

    model: str
    out: str
    samples: int
    steps: int
    guidance: float
    scheduler: str
    conditions: str
    bytes: int
    part: str | None = None

    def tables(self) -> list[contract.Table]:
        """Return what was recorded, one fact a line."""
        facts = self.model_dump(include={"model", "samples", "steps", "guidance", "scheduler", "conditions"})
        return [contract.record({**facts, "size": f"{self.bytes / 1e6:.2f} MB"})]

    def files(self) -> dict[str, str]:
        """Return the folder."""
        return {"recording": self.out}

    def next_step(self) -> str:
        """Return a look at the model on this recording."""
        from lab.jobs.models import inspect

        out, recording = Path(f"{self.out}-inspected"), Path(self.out)
        given = inspect.Settings(model=self.model, part=self.part, out=out, recording=recording)
        return as_command("inspect", given)


def names(settings: Settings) -> None:
    """Refuse a shipped or an unknown model, and a folder of something else; needs no torch."""
    from lab import zoo
    from lab.models.opening import model_files
    from lab.models.preflight import check_loose_folder

    if settings.model in zoo.names():
        raise InputError(
            f"{settings.model!r} is shipped: commands record it themselves; leave --recording away there"
        )
    model_files(settings.model, settings.part)
    check_loose_folder(settings.out)
    there = sorted(p.name for p in settings.out.glob("[!.]*")) if settings.out.is_dir() else []
    if there and "manifest.json" not in there:
        raise InputError(
            f"{settings.out} holds other files ({there[0]}) and no recording; choose another --out"
        )


def run(settings: Settings, context: Context) -> Result:
    """Sample the model and keep every input that it saw.

    Raises
    ------
    InputError
        A shipped or unknown model, no scheduler, conditions that are not the model's, or a folder that holds
        another recording.
    MissingDataError
        A file is not there; a model of text without conditions.
    """
    import quant
    from lab.zoo.exact import exact_arithmetic

    device, model, scheduler, given, what = _check(settings)
    with exact_arithmetic(device):
        store = quant.record(
            model.to(device), scheduler, given["conditions"], settings.out, n_steps=settings.steps,
            shape=settings.shape or None, n_samples=_count(settings, given), guidance=settings.guidance,
            null_condition=given["null_condition"], seed=settings.seed, batch_size=settings.batch,
            progress=context.progress,
        )  # fmt: skip
    size = sum(file.stat().st_size for file in settings.out.glob("*.safetensors"))
    return Result(
        model=settings.model, part=settings.part, out=str(settings.out), samples=len(store),
        steps=settings.steps, guidance=settings.guidance, scheduler=type(scheduler).__name__,
        conditions=what, bytes=size,
    )  # fmt: skip


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be sampled."""
    device, model, scheduler, given, what = _check(settings)
    count = settings.samples if given["conditions"] is None else len(given["conditions"])
    facts = {"model": type(model).__name__, "samples": count, "steps": settings.steps, "conditions": what}
    facts |= {"scheduler": type(scheduler).__name__, "device": device, "would write": str(settings.out)}
    return Foreseen(facts=facts)


def _check(settings: Settings) -> tuple[str, nn.Module, Any, dict[str, Tensor | None], str]:
    """Refuse what cannot work; return device, model, scheduler, conditions and what these are."""
    from lab.models.opening import open_model
    from quant.denoisers.fits import check_arguments

    names(settings)
    device = choose_device(settings.device)
    scheduler = open_scheduler(settings.model, settings.scheduler)
    model = open_model(settings.model, settings.part)
    given, what = conditions_of(model, settings)
    check_arguments(
        model, given["conditions"], given["null_condition"], n_steps=settings.steps,
        n_samples=_count(settings, given), guidance=settings.guidance, seed=settings.seed,
        batch_size=settings.batch, shape=settings.shape or None,
    )  # fmt: skip
    return device, model, scheduler, given, what


def _count(settings: Settings, given: dict[str, Tensor | None]) -> int | None:
    """Return how many samples are drawn without conditions; with them, as many as there are."""
    return settings.samples if given["conditions"] is None else None


def open_scheduler(model: str, name: str) -> Any:
    """Open a scheduler by its class, by its folder, or the one beside a model that lies in a pipeline.

    Raises
    ------
    InputError
        Diffusers has no such class; a folder's file does not name one.
    MissingDataError
        None was named and none lies beside the model.
    """
    import diffusers

    from lab.models.architecture import read_json

    config: dict[str, Any] = {}
    if not name:
        places = [Path(model) / "scheduler", Path(model).absolute().parent / "scheduler"]
        folder = next((p for p in places if (p / _CONFIG).is_file()), None)
        if folder is None:
            raise MissingDataError(
                f"no scheduler lies in or beside {model} (a hub's is not fetched): give --scheduler, the one "
                "it was trained for, as DDIMScheduler or a folder with a scheduler_config.json"
            )
        name = str(folder)
    if (file := Path(name) / _CONFIG).is_file():
        config = dict(read_json(file))
        name = str(config.get("_class_name"))
    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)):
        raise InputError(
            f"--scheduler {name}: neither a scheduler of diffusers nor a folder with a {_CONFIG}; such as "
            "DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler"
        )
    kind: Any = found
    return kind.from_config(config)


def conditions_of(model: nn.Module, settings: Settings) -> tuple[dict[str, Tensor | None], str]:
    """Return conditions and null condition of a model, and words for what they are.

    Raises
    ------
    InputError
        The file holds other tensors.
    MissingDataError
        There is no such file; a model that takes text was given none.
    """
    import torch

    from quant.denoisers.families import family_of, getter
    from quant.denoisers.family import LabelledTransformer

    if settings.conditions is not None:
        return _read(settings.conditions), f"of {settings.conditions}"
    family, get = family_of(model), getter(model)
    classes = family.labels(get)
    if (width := family.width(get)) is not None:
        raise MissingDataError(
            f"{type(model).__name__} takes text tokens of width {width}: write them, as the pipeline's "
            "encode_prompt gives them, with safetensors.torch.save_file({'conditions': tokens}, FILE), and "
            "give --conditions FILE (models that take more: quant.denoisers.families.pack)"
        )
    if classes is None:
        return dict.fromkeys(_TENSORS), "none"
    if classes > _MOST_CLASSES:  # a projection of any number
        raise MissingDataError(
            f"{type(model).__name__} takes a number as its label: write the numbers with "
            "safetensors.torch.save_file({'conditions': numbers}, FILE), and give --conditions FILE"
        )
    null = torch.tensor(classes - 1) if isinstance(family, LabelledTransformer) else None
    drawn = classes if null is None else classes - 1
    labels = torch.arange(settings.samples) % drawn
    null = null if settings.guidance != 1 else None
    return dict(zip(_TENSORS, (labels, null), strict=True)), f"class labels 0 to {drawn - 1} in turn"


def _read(file: Path) -> dict[str, Tensor | None]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise MissingDataError(f"no file of conditions at {file}: check the path")
    try:
        found = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file} is no safetensors file ({error}); write it with save_file") from error
    if "conditions" not in found or set(found) - set(_TENSORS):
        raise InputError(
            f"{file} holds {', '.join(sorted(found)) or 'nothing'}; needed: conditions, and for guidance "
            "null_condition"
        )
    return {name: found.get(name) for name in _TENSORS}
