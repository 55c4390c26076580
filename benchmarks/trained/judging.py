"""Train one row of `benchmarks.trained.rows` and judge it on trajectories kept apart."""

from __future__ import annotations

from typing import Any


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Train one row with one seed and judge it.

    Parameters
    ----------
    job : dict
        Fields of a `Row`, with model, device, recording, seed, steps, rates and pictures.

    Returns
    -------
    dict
        ``error``: of guided predictions at the full-precision model's states, over their power; ``snr_db``:
        of final latents against the full-precision model's from the same noise.
    """
    import torch

    import quant
    from lab import zoo

    torch.set_num_threads(1)
    store = quant.Trajectories.open(job["recording"])
    model = zoo.load(job["model"], job["device"])
    ledger = quant.quantize_(model, configured(job), trajectories=store, seed=job["seed"])
    found = judge(model, zoo.load(job["model"], job["device"]), store, job["pictures"])
    return {
        "method": job["method"], "row": job["name"], "recipe": job["preset"], "seed": job["seed"],
        **found, "bits_a_weight": ledger.mean_weight_bits,
        "bytes": sum(layer.bytes_after for layer in ledger.layers),
        "train_steps": ledger.cost.get("steps", 0), "seconds": ledger.seconds_taken,
        "train_seconds": ledger.cost.get("seconds", 0.0), "peak_mb": ledger.cost.get("peak_bytes", 0) / 1e6,
        "device": job["device_name"], "notes": ledger.notes,
    }  # fmt: skip


def judge(model: Any, teacher: Any, store: Any, count: int) -> dict[str, Any]:
    """Compare a quantized model with the full-precision one on trajectories that nothing was fitted to.

    Returns
    -------
    dict
        ``error`` and ``snr_db``, as in `measure`; ``by_picture`` has squared error and power of each
        trajectory, of predictions (``error``, ``power``) and of final latents (``final_...``).
    """
    import torch

    from lab.zoo.recordings import zoo_scheduler
    from quant.recordings.repeat import Sampler
    from quant.training.source import Source

    keys = store.keys("evaluate")[:count]
    source = Source(store, 32, hold=False)
    pairs = [(key, step) for key in keys for step in range(0, len(store.timesteps), 3)]
    error = power = 0.0
    each: dict[str, list[float]] = {"error": [], "power": []}
    with torch.no_grad():
        for start in range(0, len(pairs), 32):
            batch = store.read(pairs[start : start + 32])
            found = source.predict(model, batch).float()
            wanted = source.predict(teacher, batch).float()
            error += float((found - wanted).square().sum())
            power += float(wanted.square().sum())
            each["error"] += (found - wanted).square().flatten(1).sum(1).tolist()
            each["power"] += wanted.square().flatten(1).sum(1).tolist()
    finals = Sampler(store, zoo_scheduler(), store.null_condition).run(model, keys)[1].cpu()
    exact = torch.stack([store.sample(key)["final"] for key in keys])
    snr = 10 * torch.log10(exact.square().sum() / (finals - exact).square().sum())
    by_picture = {
        **{name: torch.tensor(values).view(len(keys), -1).sum(1).tolist() for name, values in each.items()},
        "final_error": (finals - exact).square().flatten(1).sum(1).tolist(),
        "final_power": exact.square().flatten(1).sum(1).tolist(),
    }
    return {"error": error / power, "snr_db": float(snr), "by_picture": by_picture}


def configured(job: dict[str, Any]) -> Any:
    """Return the config of a row: its preset with its changes, and the run's steps and rates."""
    from quant import recipes, registry

    config: Any
    _, method, config = recipes.resolve(job["preset"])
    changes = dict(job["changes"])
    if method.info.trains:
        steps = round(job["steps"] * job["longer"])
        changes = {"train_steps": steps, "look_every": max(1, steps // 4), **changes}
        # stages share the steps: every row has as many
        if method.name == "quest" and config.stages == "time+sensitive" and "stages" not in changes:
            changes["train_steps"] = steps // 2
        for rate in ("rate_weight", "rate_factors"):
            if rate in method.config.model_fields:
                changes[rate] = changes.get(rate, getattr(config, rate)) * job["rates"]
    return registry.validate(method, {**config.model_dump(), **changes})
