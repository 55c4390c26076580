"""What is trained and compared in `benchmarks.trained.orderings`, and what each card says of the order."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """One recipe of an ordering.

    Parameters
    ----------
    longer : float
        Steps of this row are this many times the others': rows that are compared with what does not train.
    """

    method: str
    name: str
    preset: str
    changes: dict[str, Any] = field(default_factory=dict)
    longer: float = 1.0


@dataclass(frozen=True)
class Claim:
    """Something a card claims: ``better`` has the lower error at every seed, or their gap shrinks to none."""

    source: str
    worse: tuple[str, str]
    better: tuple[str, str]
    measure: Literal["error", "snr_db", "bytes"] = "error"


ROWS = (
    Row("efficientdm W4A4", "1 nearest", "efficientdm-w4a4", {"train_steps": 0, "temporal": False}),
    Row("efficientdm W4A4", "2 low-rank, one rate", "efficientdm-w4a4",
        {"scale_aware": "none", "rate_factors": 1e-4, "temporal": False}),
    Row("efficientdm W4A4", "3 + scale-aware", "efficientdm-w4a4", {"temporal": False}),
    Row("efficientdm W4A4", "4 + steps by timestep", "efficientdm-w4a4"),
    Row("quest W4A4", "1 none", "quest-w4a4", {"stages": "none"}),
    Row("quest W4A4", "2 time layers", "quest-w4a4", {"stages": "time"}),
    Row("quest W4A4", "3 + sensitive layers", "quest-w4a4"),
    Row("binarydm W1A4", "0 naive, not trained", "binarydm-w1a4",
        {"train_steps": 0, "outer": 0.0, "mimicking": 0.0}),
    Row("binarydm W1A4", "1 one basis", "binarydm-w1a4", {"outer": 0.0, "mimicking": 0.0}),
    Row("binarydm W1A4", "2 two bases, greedy", "binarydm-w1a4", {"learned": False, "mimicking": 0.0}),
    Row("binarydm W1A4", "3 two bases, learned", "binarydm-w1a4", {"mimicking": 0.0}),
    Row("binarydm W1A4", "4 + mimicking", "binarydm-w1a4"),
    Row("qvgen W3A3", "1 no helper", "qvgen-w3a3", {"helper": "none"}),
    Row("qvgen W3A3", "2 dropped at once", "qvgen-w3a3", {"helper": "at-once"}),
    Row("qvgen W3A3", "3 rank decay", "qvgen-w3a3"),
    Row("W4A4 against post-training", "rtn", "rtn-w4a4"),
    Row("W4A4 against post-training", "svdquant", "svdquant-w4a4"),
    Row("W4A4 against post-training", "svdquant-gptq", "svdquant-gptq-w4a4"),
    Row("W4A4 against post-training", "qvgen, common policy, longer", "qvgen-w4a4",
        {"policy": "common", "helper": "none"}, longer=2.0),
)  # fmt: skip


def _chain(source: str, method: str, *names: str) -> tuple[Claim, ...]:
    return tuple(Claim(source, (method, worse), (method, better)) for worse, better in pairwise(names))


_PTQ = "W4A4 against post-training"
CLAIMS = (
    *_chain("EfficientDM, arXiv 2310.03270", "efficientdm W4A4", "1 nearest", "2 low-rank, one rate",
            "3 + scale-aware", "4 + steps by timestep"),
    *_chain("QuEST, ICCV 2025", "quest W4A4", "1 none", "2 time layers", "3 + sensitive layers"),
    *_chain("BinaryDM, arXiv 2404.05662v1", "binarydm W1A4", "0 naive, not trained", "1 one basis",
            "2 two bases, greedy", "3 two bases, learned", "4 + mimicking"),
    *_chain("QVGen, ICLR 2026", "qvgen W3A3", "1 no helper", "2 dropped at once", "3 rank decay"),
    Claim("the project's issue", (_PTQ, "svdquant-gptq"), (_PTQ, "qvgen, common policy, longer")),
    Claim("the project's issue", (_PTQ, "svdquant-gptq"), (_PTQ, "qvgen, common policy, longer"), "bytes"),
)  # fmt: skip
