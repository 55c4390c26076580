"""Which kernels are tuned at which shapes: those that the timed cases meet, most important first."""

from __future__ import annotations

from kernels.bench.cases import ATTENTION, IMAGES, LARGE, RANK, SMALL

Job = tuple[str, tuple[int, ...]]
WHOLE = [
    (4096, 3072, 9216), (4608, 3072, 12288), (4608, 15360, 3072), (512, 3072, 9216), (512, 3072, 12288),
    (512, 12288, 3072), (512, 3072, 3072), (8192, 640, 640), (8192, 640, 5120), (8192, 2560, 640),
    (2048, 1280, 10240), (2048, 5120, 1280), (154, 2048, 640), (154, 2048, 1280),
]  # fmt: skip
"""(M, K, N) of further linears of FLUX (4096 and 512 tokens, and both) and SDXL: tuned, not timed."""


def whole_jobs() -> list[Job]:
    """(kernel, shape) of the linears of whole models."""
    jobs: list[Job] = []
    for m, k, n in WHOLE:
        jobs += [
            ("gemm_fp8", (m, n, k + 4 * RANK)),
            ("product_fp8", (m, n, k + 4 * RANK)),
            ("quantize_many", (m, k, RANK)),
            ("expand", (n, k)),
        ]
    return list(dict.fromkeys(jobs))


def tuning_jobs(few: bool = False) -> list[Job]:
    """(kernel, shape) in the order in which they are tuned, each once."""
    jobs: list[Job] = []
    for m, k, n in LARGE[: 3 if few else None]:
        appended = k + 4 * RANK
        jobs += [
            ("gemm_fp8", (m, n, appended)),
            ("product_fp8", (m, n, appended)),
            ("quantize_many", (m, k, RANK)),
            ("quantize", (m, k, RANK)),
            ("expand", (n, k)),
            ("gemm_int8_rank", (m, n, k)),
            ("gemm_int8", (m, n, k)),
            ("gemm_fp8", (m, n, k)),
            ("gemm_fp8_rank", (m, n, k)),
            ("quantize_plain", (m, k, 0)),
        ]
    images: list[Job] = [
        ("conv2d", (b * (side // (1 if kernel > 0 else 2)) ** 2, n, c * kernel * kernel))
        for b, side, c, n, kernel in IMAGES
    ]
    heads: list[Job] = [("log_attention", (queries, keys, d)) for _, _, queries, keys, d in ATTENTION]
    few_rows: list[Job] = [("few_rows", (m, n, k)) for m, k, n in SMALL]
    rest = [] if few else whole_jobs()
    return list(dict.fromkeys(jobs[:10] + few_rows[:1] + jobs[10:] + few_rows[1:] + images + heads + rest))
