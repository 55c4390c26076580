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

LARGEST = 2**31 - 1
NOTE = "training.json has the command"


class Settings(contract.Settings):
    """Train the watermark of the shipped autoencoder.

    First the network that reads messages, then one key for each seed: a LoRA of the decoder's last stage that
    puts one message into every picture. With --extractor only keys are trained. The same command goes on
    after a stop; --minutes and --key-minutes count all its starts.
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
    """Train; files go into the folder, and a stopped training goes on there.

    Keys of further seeds may be trained in a finished folder; any other setting wants a folder of its own.

    Raises
    ------
    InputError
        Unknown preset or setting, a message that is none, no folder of pictures, a folder of another training
        or one in use.
    MissingDataError
        No pictures in the folder, no extractor where one was named.
    """
    from lab.runs.folder import Run
    from lab.zoo.watermark import training
    from quant.training.state import State

    config, claim = check(settings)
    with Run.open(settings.out, claim, note=NOTE) as folder:
        if not folder.finished or training.lacking(training.read_training(settings.out), settings.keys):
            if folder.finished:  # and keys were asked for that it lacks
                folder.reopen()
            state = State(folder.path / "training")
            training.train(
                settings.data, settings.out, config, settings.keys,
                training.Effort(settings.minutes, settings.key_minutes), message=claim["message"],
                extractor=settings.extractor, limit=settings.limit, device=claim["device"],
                seed=settings.seed, command=_command(settings), state=state, progress=context.progress,
            )  # fmt: skip
            state.remove()
            folder.finish()
        record = training.read_training(settings.out)
    given = None if settings.extractor is None else str(settings.extractor)
    return Result(record=record, folder=str(settings.out), extractor=given)


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be trained."""
    from lab.runs.folder import Run

    _, claim = check(settings)
    Run.check(settings.out, claim)
    return Foreseen(facts={"keys": list(settings.keys), "device": claim["device"], **claim["config"]})


def check(settings: Settings) -> tuple[Any, dict[str, Any]]:
    """Refuse what cannot be trained; return the config, and all that a key depends on but its seed."""
    from lab import zoo
    from lab.files import hash_file
    from lab.models.weights import fingerprint
    from lab.runs.settings import MADE_FROM
    from lab.zoo import data
    from lab.zoo.watermark.files import AUTOENCODER, load_extractor
    from lab.zoo.watermark.training import check_fit
    from quant.adapters.presets import resolve
    from quant.adapters.watermark.verify import parse_message

    _, _, config = resolve(settings.recipe)
    check_folder(settings.data)
    if not settings.keys:
        raise InputError("--keys is empty; give at least one seed, as 0")
    if max(settings.keys) > LARGEST:
        raise InputError(f"--keys has {max(settings.keys)}; seeds are 0 to {LARGEST}")
    message = settings.message
    if message is not None:
        if len(settings.keys) > 1:
            raise InputError(f"--message is for one key, --keys has {len(settings.keys)}: give one seed")
        message = parse_message(message, config.bits)
    if settings.extractor is not None:
        reads = load_extractor(settings.extractor).config["bits"]
        if reads != config.bits:
            raise InputError(
                f"{settings.extractor} reads {reads} bits, the recipe has {config.bits}: add +bits={reads}"
            )
    check_fit(config)
    given = settings.model_dump(mode="json", include={"minutes", "key_minutes", "limit", "seed"})
    made_from = {
        "data": fingerprint(data.check(settings.data)),
        "autoencoder": hash_file(zoo.weight_file(AUTOENCODER)),
        "extractor": None if settings.extractor is None else hash_file(settings.extractor),
    }
    device = choose_device(settings.device)
    claim = {"config": config.model_dump(mode="json"), "message": message, **given, "device": device}
    return config, {**claim, MADE_FROM: made_from}


def _command(settings: Settings) -> str:
    given = settings.model_dump(mode="json", exclude_defaults=True, exclude={"data", "out", "device"})
    words = [
        f"--{name.replace('_', '-')} {','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in given.items()
    ]
    return " ".join(["brainlab watermark train", *words])
