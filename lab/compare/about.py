"""Where a comparison was made: command, machine, commit, versions."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Any

import torch

from kernels.checkout import commit
from lab.compare.bench import Bench
from lab.compare.cost import BIT_OPS_RULE
from quant.about import versions


def about(bench: Bench, command: str, device: str) -> dict[str, Any]:
    """Say where and how a comparison was made."""
    s = bench.settings
    return {
        "model": bench.name,
        "command": command or "brainlab compare",
        "n": s.n,
        "seeds": s.seeds,
        "steps": s.steps,
        "guidance": s.guidance,
        "scheduler": type(bench.scheduler).__name__,
        "settings": s.to_dict(),
        "conditions": bench.conditions_are,
        "recording": bench.recording.hash,
        "hardware": hardware(device),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "versions": versions(),
        "missing": bench.networks.missing,
        "bit_ops_rule": BIT_OPS_RULE,
        "execution": "native" if bench.native else "simulated",
    }


def hardware(device: str) -> str:
    """Name of the device."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU ({platform.machine()}, {threads} thread{'s' if threads > 1 else ''})"
