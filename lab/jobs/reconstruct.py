"""The main job: from a recording to pictures through a quantized diffusion decoder, in one run folder."""

from __future__ import annotations

import platform
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainit.processes import launched, rank
from brainit.subject import Subject
from brainit.training.fitting import fit
from brainit.training.targets import TargetTable
from brainit.voxels.maps import mean_attention, write_clusters, write_map
from lab.decoding import same_data
from lab.decoding.data import BrainData, external_targets, open_subjects, zoo_targets
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.files import write_json, write_npz
from lab.models.devices import choose_device
from lab.progress import Progress, silent
from lab.runs.by_picture import write_by_picture
from lab.runs.folder import Run, is_finished

if TYPE_CHECKING:
    from brainit.training.adapting import AdaptedSubject
    from brainit.training.decoder import BrainDecoder
    from brainit.voxels.clusters import Clusters
    from lab.decoding.conditions import Conditions
    from lab.decoding.recipes import DecoderRecipe

_PACKAGES = (
    "brainit-lab",
    "torch",
    "diffusers",
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "nilearn",
    "nibabel",
)


def reconstruct(
    config: ReconstructConfig,
    out: Path,
    progress: Progress = silent,
    *,
    dry_run: bool = False,
    until: str | None = None,
    checkpoints: Path | None = None,
    encoded: dict[str, TargetTable] | None = None,
) -> dict[str, Any]:
    """Decode the test pictures of one subject and write the run folder with metrics and report.

    Parameters
    ----------
    config : ReconstructConfig
    out : Path
        Run folder. A stopped run goes on in it; a finished one is left as it is.
    progress : callable
        ``progress(done, total, what)``.
    dry_run : bool
        Check data and settings and say what would be done; write nothing.
    until : {"prepare", "train"}, optional
        Stop after that part.
    checkpoints : Path, optional
        Folder of the network's training; default the run's own. Runs on the same training data can share it.
    encoded : dict, optional
        Encoded training pictures by fingerprint, kept here for the next call on the same ones.

    Returns
    -------
    dict
        The metrics (with ``out`` and ``report``), or what a dry run or a part of the job found.
    """
    from lab.decoding.conditions import refuse_without_sampling
    from lab.jobs.checks import check_recipe, natively
    from lab.models.preflight import check_run_folder

    refuse_without_sampling(config, config.recipe)
    # before anything is trained, and before a folder is claimed
    recipe = natively(check_recipe(config.recipe, config.denoiser), config.native, config.device)
    check_run_folder(out)
    lay = same_data.where_it_lay(out, config)
    Run.check(out, lay)
    if dry_run:
        return _dry(config, out, progress)
    _refuse_together(until)
    choose_device(config.device)
    # data that cannot be used are refused before the folder is claimed
    finished = is_finished(out)
    if finished:
        same_data.check_finished(out, config)
    opened = None if finished else open_subjects(config, progress)
    if opened is not None and launched() > 1 and opened.subject.stimuli is None:
        raise InputError("networks for categories are trained in one process; call this without launch")
    if rank():  # the first holds the folder for all
        if opened is not None and config.network != "shared":
            train(config, opened, checkpoints or out / "checkpoints" / "brainit", progress, encoded)
        return {"out": str(out), "process": rank()}
    with Run.open(out, lay) as run:
        if run.finished:
            return {"done before": True, "report": str(out / "report.html"), **run.metrics}
        data = opened or open_subjects(config, progress)
        same_data.claim(out, data.marks)
        write_json(out / "subject.json", data.about)
        write_json(out / "versions.json", versions())
        run.log("leaks", line=data.about["leak_line"])
        if until == "prepare":
            return {"out": str(out), "leaks": data.about["leak_line"], **_counts(data.subject)}
        if data.subject.stimuli is None:
            from lab.decoding.categories.way import run_categories, train_folds

            if until == "train":
                trained = train_folds(run, config, data.subject, progress)
                return {"out": str(out), "leaks": data.about["leak_line"], **_counts(data.subject), **trained}
            metrics = run_categories(run, config, data.subject, progress)
        else:
            folder = checkpoints or run.checkpoints / "brainit"
            if config.network == "shared":  # a file for each subject
                folder = run.checkpoints / "brainit"
            decoder = train(config, data, folder, progress, encoded)
            for network, record in enumerate(decoder.report.get("training", [])):
                about: dict[str, Any] = {k: v for k, v in record.items() if isinstance(v, int | float | str)}
                if "best_epoch" in about:  # counted from 0 in the record, from 1 in the log
                    about["best_epoch"] += 1
                run.log("trained", **about, network=network)
                losses = zip_longest(record.get("train", ()), record.get("valid", ()))
                for epoch, (train_loss, valid_loss) in enumerate(losses, 1):
                    run.log(
                        "epoch", network=network, epoch=epoch, train_loss=train_loss, valid_loss=valid_loss
                    )
            if until == "train":
                return {"out": str(out), "leaks": data.about["leak_line"], **_counts(data.subject)}
            metrics = _pictures(run, config, recipe, data, decoder, progress)
        metrics = run.write_metrics(metrics)
        from lab.report import build_report

        page = build_report(out)
        run.finish()
    return {"report": str(page), **metrics}


def _refuse_together(until: str | None) -> None:
    """Refuse under a launcher what several processes cannot share: everything but training."""
    if launched() > 1 and until != "train":
        raise InputError(
            f"this runs in one process, not in {launched()}: only training is shared. Launch `brain train` "
            "with the same settings and --out, then call this without launch"
        )


def train(
    config: ReconstructConfig,
    data: BrainData,
    folder: Path | None,
    progress: Progress,
    encoded: dict[str, TargetTable] | None = None,
) -> Any:
    """Train Brain-IT (a ``BrainDecoder``), or read it from ``folder`` where it is finished.

    With ``network: shared`` nothing is trained: the network that ships is adapted (an ``AdaptedSubject``).
    """
    device = choose_device(config.device)
    if config.network == "shared":
        from lab.decoding.cohort.adapted import adapted

        return adapted(data.subject, folder, progress, device, encoded, seed=config.seed)
    return fit(
        data.learners,
        zoo_targets(data.learners, progress, device, encoded),
        config.brain,
        folder,
        progress,
        external=external_targets(config, data.subject, progress, device),
        device=device,
    )


def _pictures(
    run: Run,
    config: ReconstructConfig,
    recipe: DecoderRecipe,
    data: BrainData,
    decoder: Any,
    progress: Progress,
) -> dict[str, Any]:
    from lab.decoding import scores as brain_scores
    from lab.decoding.bits import ledger_facts
    from lab.decoding.conditions import find_conditions
    from lab.decoding.encoder.correlation import brain_correlation
    from lab.decoding.recipes import FULL, DecoderRecipe, decoded, ridge_through_decoder
    from lab.decoding.structure import inverted
    from lab.images import from_model

    device = choose_device(config.device)
    given = find_conditions(run.step, config, data.subject, lambda: decoder, device, progress)
    like = given.truth.shape[1:]
    arms: dict[str, Any] = {}
    arms["fp"], _ = decoded(run.step, "full", config, DecoderRecipe(FULL), given, device, progress)
    arms["quantized"], found = decoded(run.step, "quantized", config, recipe, given, device, progress)
    arms["ridge_tokens"] = ridge_through_decoder(run.step, config, given, device, progress)
    structural = from_model(_tensor(given.start), like)
    arms |= {"ridge": given.ridge, "mean_image": given.mean_image, "structural": structural}
    if config.structure != "brainit" and "map0" in given.predicted:
        arms["brainit_structural"] = from_model(inverted(given.predicted), like)
    brain = brain_correlation(run.step, data.subject, device, progress, config.voxel_encoder)
    each: dict[str, Any] = {}
    flat = brain_scores.flat_metrics(given.truth, arms, config.bootstrap, config.seed, brain, each)
    write_by_picture(run.path, given.truth, each)
    for name in ("plan", "ledger"):
        if name in found:
            write_json(run.path / f"{name}.json", found[name])
    one = (
        {} if config.n_samples == 1 else {"sample": _one_sample(run, config, recipe, given, device, progress)}
    )
    attention = _attention(data.subject, decoder, given.tokens.shape[1])
    maps = {"attention": attention}
    if given.ridge_weights is not None:  # a run of before has none
        maps["structure"] = given.ridge_weights / given.ridge_weights.mean()
    _write_pictures(run.path, given.truth, arms | one, data.subject, decoder.clusters, maps)
    facts = {f"structure.{k}": v for k, v in given.facts.items() if not isinstance(v, list)}
    return {
        **_counts(data.subject),
        "n_train": len(np.unique(data.subject.part("train").stimulus_id)),
        "n_test": len(given.truth),
        "seed": config.seed,
        "noise_seeds": config.noise_seeds,
        "n_samples": config.n_samples,
        "recipe": config.recipe,
        "arithmetic": "full precision" if config.recipe == FULL else ledger_facts(found)["arithmetic"],
        "structure.made_by": given.from_start,
        "leak_test_in_train": data.about["leak"]["leak_test_in_train"],
        "leaks": data.about["leak_line"],
        **facts,
        **{k: v for k, v in found.items() if k.startswith("decoder")},
        **flat,
    }


def _one_sample(
    run: Run,
    config: ReconstructConfig,
    recipe: DecoderRecipe,
    given: Conditions,
    device: str,
    progress: Progress,
) -> list[np.ndarray]:
    """Draw one sample of each picture, to be looked at beside the averages that are scored."""
    from lab.decoding.recipes import decoded

    single = config.model_copy(update={"n_samples": 1, "noise_seeds": 1})
    return decoded(run.step, "one-sample", single, recipe, given, device, progress)[0]


def _counts(subject: Subject) -> dict[str, Any]:
    return {
        "dataset": subject.dataset,
        "subject": subject.name,
        "simulated": subject.simulated,
        "n_voxels": subject.n_voxels,
        "n_train": int((subject.split == "train").sum()),
        "n_test": int((subject.split == "test").sum()),
    }


def _tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array)


def _write_pictures(
    out: Path,
    truth: np.ndarray,
    arms: dict[str, Any],
    subject: Subject,
    clusters: Clusters,
    maps: dict[str, np.ndarray],
) -> None:
    """Write arrays and pictures, and maps of voxels: 1 is an even share."""
    from PIL import Image

    from brainit.metrics import pixcorr
    from lab.files import replacing

    shown = {
        name: np.asarray(arm[0] if isinstance(arm, list) else arm, np.float32) for name, arm in arms.items()
    }
    arrays = {"stimulus": truth.astype(np.float32), **shown}
    arrays["score_pixcorr"] = np.mean([pixcorr(a, truth) for a in arms["quantized"]], 0)
    if subject.has_places:
        arrays["xyz"] = subject.xyz
    arrays["cluster"] = clusters.labels[subject.name]
    arrays["attention"] = maps["attention"]
    if subject.noise_ceiling is not None:
        arrays["noise_ceiling"] = subject.noise_ceiling
    write_npz(out / "arrays.npz", arrays)
    if subject.mask is not None:
        write_clusters(subject, arrays["cluster"], out / "maps" / "clusters_dseg.nii.gz")
        for name, values in maps.items():
            write_map(subject, values, out / "maps" / f"{name}_statmap.nii.gz")
    folder = out / "images"
    folder.mkdir(exist_ok=True)
    for name in ("stimulus", "structural", "fp", "quantized"):
        for i, picture in enumerate((arrays[name].clip(0, 1) * 255).round().astype(np.uint8)):
            with replacing(folder / f"{i:04d}_{name}.png") as temporary:
                Image.fromarray(picture).save(temporary, format="PNG")


def _attention(subject: Subject, decoder: BrainDecoder | AdaptedSubject, n_tokens: int) -> np.ndarray:
    """Return where the network looks, mean over test pictures and tokens; 1 is an even share."""
    test = subject.part("test").mean_over_repeats()
    shares = mean_attention(lambda token: decoder.attention_map(test, token), range(n_tokens))
    return shares.astype(np.float32)


def versions() -> dict[str, str]:
    """Versions of Python, the platform, and the packages that numbers depend on."""
    from quant.about import versions as installed

    machine = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    return machine | installed(_PACKAGES)


def _dry(config: ReconstructConfig, out: Path, progress: Progress) -> dict[str, Any]:
    from lab.decoding.drawing import settings_of

    if config.dataset == "simulated":  # reading them would make them
        from lab.decoding.simulated import asked_for

        asked_for(dict(config.options))
        counts: dict[str, Any] = {"dataset": "simulated", "simulated": True}
    else:
        opened = open_subjects(config, progress)
        counts = _counts(opened.subject) | {"leaks": opened.about["leak_line"]}
        counts |= {"warnings": opened.about["warnings"]} if opened.about["warnings"] else {}
    sampler = settings_of(config)
    evaluations = sampler.steps * (1 if sampler.guidance == 1 else 2) * config.n_samples * config.noise_seeds
    return {
        "would write": str(out),
        **counts,
        "recipe": config.recipe,
        "structure": config.structure,
        "sampler": f"{sampler.steps} Euler steps from strength {sampler.strength:g}",
        "guidance": sampler.guidance,
        "denoiser evaluations per picture": evaluations * (1 if config.recipe == "none" else 2),
    }
