"""Decode a few test trials of a trained run again, with other settings.

Nothing is trained. The run's own predictions are used; only masking voxels asks its network again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.brain.scores import warned
from lab.jobs.contract import Context, Numbers, Preview, Seed, Table, line, setting

if TYPE_CHECKING:
    import numpy as np

    from lab.decoding.trained import TrainedRun

MOST = 16


class Settings(contract.Settings):
    """Decode a few test trials of a trained run again: other bits, guidance, strength, or voxels masked."""

    folder: Path = setting(..., "run folder of brain reconstruct or train; only read", argument=True)
    trials: Numbers = setting((0, 1, 2, 3), "test pictures, counted from 0, with commas between")
    recipe: str = setting("none", "how the decoder is quantized; none: full precision", short="-r")
    guidance: float | None = setting(None, "classifier-free guidance; default: the run's", ge=0, le=30)
    strength: float | None = setting(
        None, "noise added to the structural picture, 0 to 1; default: the run's", ge=0, le=1
    )
    steps: int | None = setting(None, "sampling steps; default: the run's", ge=1, le=200)
    native: bool = setting(False, "draw through the GPU's low-bit kernels, not simulated")
    mask: str = setting("", "region whose voxels are silenced (set to their training mean); empty: none")
    semantic: bool = setting(False, "also draw from the tokens alone, starting at noise")
    root: Path | None = setting(None, "where the run's dataset lies now; default: where it lay")
    seed: Seed = setting(0, "fixes the noise")
    out: Path = setting(Path("runs/decode"), "folder for the pictures", short="-o")


class Result(contract.Result):
    """Scores per trial and where the pictures lie (``pictures.npz``: an array for each of `shown`).

    Two-way is the share of the other stimuli that a picture is less like than its own, by features.
    """

    rows: list[dict[str, Any]]
    shown: list[str]
    leak_line: str
    simulated_subject: bool
    arithmetic: str
    regions: list[str]
    sheet: str
    archive: str
    warnings: tuple[str, ...] = ()

    def tables(self) -> list[Table]:
        """Return scores per trial, the leak check, then warnings."""
        who = "simulated subject" if self.simulated_subject else "measured subject"
        said = line(f"{who}; bit-widths {self.arithmetic}; {self.leak_line}")
        return [Table(self.rows), said, *warned(self.warnings)]

    def files(self) -> dict[str, str]:
        """Return the picture sheet and the arrays."""
        return {"pictures": self.sheet, "arrays": self.archive}


ROWS = ("stimulus", "ridge to pixels", "structural", "semantic", "decoded")


def names(settings: Settings) -> None:
    """Refuse what is no trained run, and an unknown recipe; needs no torch."""
    _named(settings)


def run(settings: Settings, context: Context) -> Result:
    """Predict (or read), draw from the same noise, score beside ridge.

    Raises
    ------
    InputError
        The folder is no trained run, a trial or a region does not exist, the recipe cannot run there.
    """
    import numpy as np

    from brainit.metrics import pixcorr, ssim
    from lab.decoding.scores import recognised
    from lab.files import write_npz
    from lab.images import sheet, write_picture

    trained, config, recipe = check(settings)
    found = _decoded(settings, trained, config, recipe, context)
    truth, decoded = found["stimulus"], found["decoded"]
    pairs = {
        name: recognised(picture, settings.trials, found["all"])
        for name, picture in (("ridge", found["ridge to pixels"]), ("decoded", decoded))
    }
    rows = []
    for place, trial in enumerate(settings.trials):
        mine = [found[name][place : place + 1] for name in ("ridge to pixels", "decoded")]
        scores = {
            f"{score} {name}": round(float(function(picture, truth[place : place + 1])[0]), 4)
            for score, function in (("PixCorr", pixcorr), ("SSIM", ssim))
            for name, picture in zip(("ridge", "decoded"), mine, strict=True)
        }
        seen = {f"two-way {name}": round(float(p[place]), 3) for name, p in pairs.items() if p is not None}
        rows.append({"trial": trial, "stimulus": found["ids"][place], **seen, **scores})
    pictures = {name: found[name] for name in ROWS if name in found}
    stacked = np.concatenate(list(pictures.values()))
    file = settings.out / "pictures.png"
    shown = "; ".join(f"{row['trial']} ({row['stimulus']})" for row in rows)
    about = f"rows: {', '.join(pictures)}; columns, test pictures: {shown}"
    write_picture(sheet(coloured(stacked), len(truth), gap=2), file, about=about)
    write_npz(settings.out / "pictures.npz", {name.replace(" ", "_"): p for name, p in pictures.items()})
    context.preview(Preview("decoded", 1, 1, (coloured(decoded) * 255).round().astype(np.uint8)))
    return Result(
        rows=rows, shown=list(pictures), leak_line=found["leak_line"], simulated_subject=found["simulated"],
        arithmetic=found["arithmetic"], regions=found["regions"], sheet=str(file),
        archive=str(settings.out / "pictures.npz"), warnings=found["warnings"],
    )  # fmt: skip


def _named(settings: Settings) -> TrainedRun:
    """Return the run; needs no torch."""
    from lab.decoding.trained import TrainedRun
    from lab.jobs.checks import check_recipe_name
    from lab.models.preflight import check_loose_folder

    check_loose_folder(settings.out)
    if not 1 <= len(settings.trials) <= MOST:
        raise InputError(f"{len(settings.trials)} trials; choose 1 to {MOST}")
    trained = TrainedRun.open(settings.folder, settings.root)
    check_recipe_name(settings.recipe, trained.config.denoiser)
    return trained


def check(settings: Settings) -> tuple[Any, Any, Any]:
    """Refuse what is not of the data; return the trained run, the settings to decode with, and the recipe."""
    from lab.jobs.checks import check_recipe, natively

    trained = _named(settings)
    config = trained.config.model_copy(update=_changes(settings))
    recipe = natively(check_recipe(settings.recipe, config.denoiser), settings.native, config.device)
    return trained, config, recipe


def _changes(settings: Settings) -> dict[str, Any]:
    given = {name: getattr(settings, name) for name in ("guidance", "strength", "steps")}
    return {name: value for name, value in given.items() if value is not None} | {
        "train_on": "one", "noise_seeds": 1, "n_samples": 1, "seed": settings.seed, "recipe": settings.recipe,
    }  # fmt: skip


def _decoded(settings: Settings, trained: Any, config: Any, recipe: Any, context: Context) -> dict[str, Any]:
    """Predictions of the chosen trials and their pictures."""
    from dataclasses import replace

    from lab.decoding import same_data, structure
    from lab.decoding.conditions import find_conditions
    from lab.decoding.data import open_subjects
    from lab.decoding.drawing import draw
    from lab.decoding.recipes import through
    from lab.models.devices import choose_device
    from lab.zoo import load

    device = choose_device(config.device)
    data = open_subjects(config, context.progress)
    same_data.check(settings.folder, data.subject)
    test = data.subject.part("test").mean_over_repeats()
    _suits(settings, test)
    keep = list(settings.trials)
    given = find_conditions(
        trained.step(lambda name, compute: compute()), trained.config, data.subject, trained.network, device,
        context.progress,
    )  # fmt: skip
    tokens, start, ridge = given.tokens, given.start, given.ridge
    if settings.mask:
        silent = replace(test, betas=_silenced(test, data.subject, settings.mask))
        tokens, start, ridge = structure.again(
            trained.config, data.subject.part("train").mean_over_repeats(), silent, trained.network(), device,
            context.progress,
        )  # fmt: skip
    denoiser, ledger = load(config.denoiser, device), None
    if recipe.content is not None:
        denoiser, _, ledger = through(config, recipe, given, device, context.progress)
    like = given.truth.shape[1:]
    pictures = draw(config, denoiser, tokens[keep], start[keep], 0, like, device, context.progress, keep)
    more = {}
    if settings.semantic:
        alone = config.model_copy(update={"structure": "none"})
        more["semantic"] = draw(
            alone, denoiser, tokens[keep], start[keep], 0, like, device, context.progress, keep
        )  # fmt: skip
    arithmetic = "full precision" if ledger is None else ledger.arithmetic  # with how kernels were launched
    from lab.images import from_model

    return {
        **more, "all": given.truth, "stimulus": given.truth[keep], "ridge to pixels": ridge[keep],
        "structural": from_model(_torch(start[keep]), like), "decoded": pictures,
        "ids": [str(test.stimulus_id[k]) for k in keep], "leak_line": trained.leaks(data.about)["leak_line"],
        "simulated": bool(data.about["simulated"]), "arithmetic": arithmetic, "regions": sorted(test.roi),
        "warnings": tuple(data.about["warnings"]),
    }  # fmt: skip


def _suits(settings: Settings, test: Any) -> None:
    outside = [t for t in settings.trials if not 0 <= t < test.n_trials]
    if outside:
        raise InputError(f"trial {outside[0]}: this subject has test pictures 0 to {test.n_trials - 1}")
    if settings.mask and settings.mask not in test.roi:
        raise InputError(
            f"region {settings.mask!r} is not known of this subject; there are: "
            f"{', '.join(sorted(test.roi)) or 'none'}"
        )


def _silenced(test: Any, whole: Any, region: str) -> np.ndarray:
    """Betas whose voxels of a region say nothing: their mean over training trials."""
    betas = test.betas.copy()
    inside = test.roi[region]
    # of repeats averaged, which is what decoders were fitted to
    betas[:, inside] = whole.part("train").mean_over_repeats().betas[:, inside].mean(0)
    return betas


def _torch(pictures: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(pictures)


def coloured(pictures: np.ndarray) -> np.ndarray:
    """Grey pictures (n, H, W) as colour ones (n, H, W, 3)."""
    import numpy as np

    return np.repeat(pictures[..., None], 3, -1) if pictures.ndim == 3 else pictures
