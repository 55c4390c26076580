"""From sensitivity to a table of bits: measure weights and inputs alone, allocate, pick by what comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from torch import nn

from quant.api import plan, quantize_
from quant.errors import InputError
from quant.formats.granularity import weight_layout
from quant.formats.quantizer import int_quantizer
from quant.io import write_text
from quant.layers.encoded import planned_bytes
from quant.layers.install import restore_
from quant.methods.mixdq.allocate import Allocation, allocate
from quant.methods.mixdq.config import LayerBits, MixdqConfig
from quant.progress import Progress
from quant.recordings.trajectories import Trajectories
from quant.sensitivity.by_layer import Sensitivity, layer_sensitivity
from quant.sensitivity.probes import Probe

CONTENT = ("*attn2*", "*.ff.*")
"""Layers that decide what is in the picture: cross-attention and feed-forward (diffusers names)."""
SWEEP = tuple(round(0.46 + 0.1 * i, 2) for i in range(10))
"""Content bits over quality bits; the paper's range for weights."""

Table = dict[str, dict[Any, float]]


def is_content(name: str, patterns: Sequence[str] = CONTENT) -> bool:
    """Whether a layer is judged by the picture and not by the noise prediction."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def measure(
    model: nn.Module,
    config: MixdqConfig,
    trajectories: Trajectories,
    *,
    side: Literal["weight", "activation"] = "weight",
    choices: Sequence[int] = (2, 4, 8),
    probes: Sequence[Probe] | None = None,
    path: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sensitivity:
    """Quantize the weights (or the inputs) of one layer at a time to each number of bits.

    Settings of the rows are called "2", "4", ...; see `layer_sensitivity` for the rest.
    """
    base = config.model_copy(update={"table": {}})
    if side == "weight":
        # float inputs need no calibration, and only the weight is left to measure
        changes: dict[str, dict[str, Any]] = {
            str(b): {"weight_bits": b, "activation_bits": None} for b in choices
        }
        sides: tuple[Any, ...] = ("both",)
    else:
        changes = {str(b): {"activation_bits": b, "weight_bits": 8} for b in choices}
        sides = ("activation",)
    return layer_sensitivity(
        model, base, trajectories, settings=changes, sides=sides, probes=probes, path=path, seed=seed,
        progress=progress,
    )  # fmt: skip


def scores(table: Sensitivity, metric: str) -> Table:
    """Score by layer and bits from a table of `measure`; errors (``...mse``) change sign.

    The paper sums decibels ("sqnr_db") and similarities ("ssim"). A sum of decibels gives as much for
    lifting a layer from 80 to 90 dB as from 10 to 20; noise power ("nmse") adds up as errors do.
    """
    sign = -1.0 if metric.endswith("mse") else 1.0
    found: Table = {}
    for row in table.rows:
        if row.kind and metric in row.metrics:
            found.setdefault(row.layer, {})[int(row.setting)] = sign * row.metrics[metric]
    if not found:
        raise InputError(f"the sensitivity table has no metric {metric!r}: measure it with the probe for it")
    return found


def byte_costs(model: nn.Module, config: MixdqConfig, choices: Sequence[int]) -> Table:
    """Bytes of codes and scales by layer and bits, as a checkpoint stores them."""
    found: Table = {}
    for line in plan(model, config).quantized:
        grouped = config.weight_group is not None and line.shape[1] >= config.weight_group
        options = ("group", config.weight_group) if grouped else ("channel", None)
        found[line.name] = {
            bits: float(
                sum(
                    planned_bytes(
                        int_quantizer(bits, *options), line.shape, weight_layout(line.kind)
                    ).values()
                )
            )
            for bits in choices
        }
    return found


@dataclass(frozen=True)
class Candidate:
    """One split of the budget between content and quality layers."""

    k: float
    choices: dict[str, int]
    cost: float
    parts: tuple[Allocation, ...]


def decoupled(
    content: Mapping[str, Mapping[int, float]],
    quality: Mapping[str, Mapping[int, float]],
    costs: Mapping[str, Mapping[int, float]],
    budget: float,
    sweep: Sequence[float] = SWEEP,
) -> list[Candidate]:
    """Two integer programs for each k = content bits over quality bits, whose budgets add up to `budget`.

    ``B_q = B (1 + r) / (k r + 1)``, ``B_c = k B_q`` (MixDQ, section 3.4), with r the sizes' ratio; sizes are
    the costs at the largest choice. Splits that no allocation meets are left out.

    Raises
    ------
    InputError
        There is no split that can be met.
    """
    size_c = sum(max(costs[name].values()) for name in content)
    size_q = sum(max(costs[name].values()) for name in quality)
    if not size_c or not size_q:
        both = {**content, **quality}
        found = allocate(both, costs, budget)
        return [Candidate(1.0, found.choices, found.cost, (found,))]
    candidates: list[Candidate] = []
    reason: InputError | None = None
    for k in sweep:
        share = budget / (size_q + k * size_c)
        try:
            a = allocate(content, costs, k * share * size_c)
            b = allocate(quality, costs, share * size_q)
        except InputError as error:
            reason = error
            continue
        choices = {**a.choices, **b.choices}
        if all(choices != other.choices for other in candidates):
            candidates.append(Candidate(k, choices, a.cost + b.cost, (a, b)))
    if not candidates:
        raise InputError(
            f"no split of {budget:,.6g} bytes between content and quality layers works: {reason}"
        )
    return candidates


def with_weights(config: MixdqConfig, choices: Mapping[str, int]) -> MixdqConfig:
    """Put allocated weight bits into the table; input bits stay what they were."""
    table = dict(config.table)
    for name, bits in choices.items():
        old = table.get(name)
        table[name] = LayerBits(
            weight=bits, activation=config.activation_bits if old is None else old.activation
        )
    return config.model_copy(update={"table": table})


def errors(
    model: nn.Module,
    configs: Sequence[MixdqConfig],
    trajectories: Trajectories,
    probe: Probe,
    *,
    metric: str = "nmse",
    seed: int = 0,
    progress: Progress | None = None,
) -> list[float]:
    """Quantize with each config in turn and say how far the model is from full precision: least is best.

    Unlike the released code the comparison is in floating point, over several samples: on 8-bit pictures
    differences wrap around, and a single picture chooses by luck. What gives no number is infinitely far: NaN
    is less than nothing, and the least of a list that begins with it.
    """
    reference, found = probe.run(model), []
    for index, config in enumerate(configs):
        quantize_(model, config, trajectories=trajectories, seed=seed)
        try:
            value = probe.compare(reference, probe.run(model))[0][metric]
        finally:
            restore_(model)
        error = value if metric.endswith("mse") else -value
        found.append(math.inf if math.isnan(error) else error)
        if progress is not None:
            progress(index + 1, len(configs), "comparing allocations")
    return found


def save_preset(path: str | Path, config: MixdqConfig, title: str, policy: str = "paper") -> Path:
    """Write a config as a preset file, which `quant.quantize_` takes in place of a preset's name."""
    import yaml

    target = Path(path)
    data = {
        "title": title, "policy": policy, "method": "mixdq",
        "config": config.model_dump(mode="json", exclude_defaults=True),
    }  # fmt: skip
    write_text(target, yaml.safe_dump(data, sort_keys=False))
    return target
