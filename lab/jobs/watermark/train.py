"""Job behind ``brainlab watermark train``: an extractor and keys for the shipped autoencoder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Numbers, Seed, Table, setting
from lab.jobs.zoo.train import check_folder
from lab.models.devices import choose_device


class Settings(contract.Settings):
    """Train the watermark of the shipped autoencoder.

    First the network that reads messages, then one key for each seed: a LoRA of the decoder's last stage that
    puts one message into every picture. With --extractor only keys are trained.
    """

    data: Path = setting(..., "folder with the training and held-out pictures")
    out: Path = setting(Path("runs/watermark"), "folder of extractor, keys and training.json", short="-o")
    recipe: str = setting("watermark-48", "preset of the adapter, with changes as PRESET+field=value")
    keys: Numbers = setting((0,), "seeds of the keys: each draws a message and trains on its order")
    message: str | None = setting(
        None, "message of a single key instead of a drawn one: bits, or hex after 0x"
    )
    extractor: Path | None = setting(None, "train keys against this extractor instead of a new one")
    minutes: float | None = setting(None, "time for the extractor", unit="minutes", ge=0.01)
    key_minutes: float | None = setting(None, "time for each key", unit="minutes", ge=0.01)
    limit: int | None = setting(None, "only the first pictures, for a trial", ge=64)
    seed: Seed = setting(0, "fixes the extractor's weights and order")
    device: Device = setting("auto", "where the networks run")


class Result(contract.Result):
    """What the training came to, on held-out pictures."""

    record: dict[str, Any]
    folder: str
    extractor: str | None = None

    def plain(self) -> Any:
        """Return the record without its traces."""
        keys = [{k: v for k, v in key.items() if k != "trace"} for key in self.record["keys"]]
        return {**self.record, "keys": keys, "extractor": None}

    def tables(self) -> list[Table]:
        """Return a row for each key."""
        rows = [
            {"key": k["seed"], "bit error": f"{k['bit_error']:.4f}", "fewest matches": k["fewest_matches"],
             "PSNR, dB": f"{k['psnr_db']:.2f}", "seconds": k["seconds"]}
            for k in self.record["keys"]
        ]  # fmt: skip
        return [Table(rows)]

    def files(self) -> dict[str, str]:
        """Return the folder."""
        return {"keys": self.folder}

    def next_step(self) -> str:
        """Return how a picture is marked."""
        key = f"{self.folder}/key-{self.record['keys'][0]['seed']}.safetensors"
        reader = self.extractor or f"{self.folder}/extractor.safetensors"
        return shlex.join(["brainlab", "watermark", "embed", "PICTURE", "--key", key, "--extractor", reader])


def run(settings: Settings, context: Context) -> Result:
    """Train; files go into the folder.

    Raises
    ------
    InputError
        Unknown preset or setting, a message that is none, no folder of pictures.
    """
    config, device = check(settings)
    from lab.zoo.watermark import training
    from quant.adapters.watermark.verify import parse_message

    messages = [] if settings.message is None else [parse_message(settings.message, config.bits)]
    effort = training.Effort(settings.minutes, settings.key_minutes)
    record = training.train(
        settings.data, settings.out, config, settings.keys, effort, messages=messages,
        extractor=settings.extractor, limit=settings.limit, device=device, seed=settings.seed,
        command=_command(settings), progress=context.progress,
    )  # fmt: skip
    given = None if settings.extractor is None else str(settings.extractor)
    return Result(record=record, folder=str(settings.out), extractor=given)


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be trained."""
    config, device = check(settings)
    return Foreseen(facts={"keys": list(settings.keys), "device": device, **config.model_dump(mode="json")})


def check(settings: Settings) -> tuple[Any, str]:
    """Refuse what cannot be trained; return config and device."""
    from quant.adapters.presets import resolve

    _, _, config = resolve(settings.recipe)
    check_folder(settings.data)
    if not settings.keys:
        raise InputError("--keys is empty; give at least one seed, as 0")
    if settings.message is not None and len(settings.keys) > 1:
        raise InputError(f"--message is for one key, --keys has {len(settings.keys)}: give one seed")
    return config, choose_device(settings.device)


def _command(settings: Settings) -> str:
    given = settings.model_dump(mode="json", exclude_defaults=True, exclude={"data", "out", "device"})
    words = [
        f"--{name.replace('_', '-')} {','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in given.items()
    ]
    return " ".join(["brainlab watermark train", *words])
