"""What `benchmarks.svdquant_seconds` measures: kinds of layers, kinds of blocks."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lab.errors import HardwareError
from lab.progress import Progress


def open_device(name: str) -> torch.device:
    """Return a device, or say that it is not there."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise HardwareError(f"device {name!r} cannot be used ({first}); cpu always works") from None
    return device


def device_name(device: torch.device) -> str:
    """Say which hardware a device is."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.processor() or platform.machine()}), {torch.get_num_threads()} threads"


@dataclass
class Kind:
    """Layers (or stacks of layers that read one input) of one shape and format, and how many there are."""

    lines: list[Any]
    infos: list[Any]
    treated: str
    count: int = 1

    @property
    def label(self) -> str:
        """Readable shape, as ``3 x Linear 3072x3072``."""
        line = self.lines[0]
        many = f"{len(self.lines)} x " if len(self.lines) > 1 else ""
        return f"{many}{line.kind} {'x'.join(map(str, line.shape))}"

    @property
    def n_weights(self) -> int:
        """Weights of one."""
        return sum(line.n_weights for line in self.lines)

    def row_bytes(self, config: Any) -> int:
        """Bytes of calibration rows that one needs."""
        width = self.lines[0].shape[1]
        return 4 * _rows(config, width) * width * len(self.lines) if self.treated == "branch" else 0

    def run(self, config: Any, device: torch.device) -> dict[str, Any]:
        """Make random weights on the CPU in bfloat16, quantize on the device, install on the CPU."""
        from quant.denoisers.offload import to_device
        from quant.formats.schedule import Clock
        from quant.layers.quantized import make, weight_sqnr_db
        from quant.methods.svdquant import core
        from quant.recordings.rows import LayerRows

        modules: dict[str, nn.Module] = {line.name: _layer(line, info) for line, info in zip(
            self.lines, self.infos, strict=True
        )}  # fmt: skip
        line, info = self.lines[0], self.infos[0]
        if self.treated == "branch":
            width = line.shape[1]
            rows = random_rows(_rows(config, width), width, device, info.after_gelu)
            seen = LayerRows(rows, rows.amin(0), rows.amax(0))
            start = wait(device)
            results = core.solve_stack([(x, seen) for x in self.lines], modules, info, config)
        else:
            weight = modules[line.name].get_parameter("weight").detach()
            start = wait(device)
            results = {line.name: to_device(core.grouped(weight.to(device), line), "cpu")}
        middle = wait(device)
        for name, result in results.items():  # what `quantize_` does with each result
            weight_sqnr_db(modules[name].get_parameter("weight"), result)
            make(modules[name], result, Clock(), keep_original=False)
        return {
            "seconds": middle - start, "install_seconds": wait(device) - middle,
            "rounds": results[line.name].notes.get("rounds", 1),
        }  # fmt: skip


def _rows(config: Any, width: int) -> int:
    return max(config.rows, 2 * width) if config.residual == "gptq" else config.rows


def _layer(line: Any, info: Any) -> nn.Module:
    with torch.device("meta"):
        if line.kind == "Linear":
            bare: nn.Module = nn.Linear(line.shape[1], line.shape[0], dtype=torch.bfloat16)
        else:
            bare = nn.Conv2d(
                line.shape[1] * info.groups, line.shape[0], line.shape[2:], groups=info.groups,
                dtype=torch.bfloat16,
            )  # fmt: skip
    return _filled(bare)


def _filled(module: nn.Module) -> nn.Module:
    """Give a meta module random values on the CPU; matrices as trained ones are, vectors as ones."""
    module = module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.ndim > 1 and tensor.is_floating_point():
                tensor.normal_(0, (tensor[0].numel()) ** -0.5)
            else:
                tensor.fill_(1)
    return module


def layer_kinds(model: nn.Module, planned: Any, tokens: int) -> list[Kind]:
    """Kinds of planned layers; siblings that read the very same tensor are one stack, as in the method."""
    from quant.denoisers.inventory import find_layers
    from quant.methods.svdquant.formats import kind_of

    infos = {info.name: info for info in find_layers(model)}
    source = _inputs(model, tokens)
    stacks: dict[Any, list[Any]] = {}
    for line in planned.quantized:
        treated = kind_of(infos[line.name])
        key: Any = line.name
        if treated == "branch" and line.name in source:
            key = (line.name.rpartition(".")[0], source[line.name], line.shape, str(line.activation))
        stacks.setdefault(key, []).append(line)
    kinds: dict[Any, Kind] = {}
    for lines in stacks.values():
        info = infos[lines[0].name]
        treated = kind_of(info)
        key = (len(lines), lines[0].kind, lines[0].shape, treated, info.after_gelu, info.groups)
        if key in kinds:
            kinds[key].count += 1
        else:
            kinds[key] = Kind(lines, [infos[line.name] for line in lines], treated)
    return list(kinds.values())


def _inputs(model: nn.Module, tokens: int) -> dict[str, int]:
    """Find which linears read the same tensor, in one forward on the meta device: a number each."""
    numbers: dict[str, int] = {}
    alive: list[Tensor] = []  # an id is only unique among the living

    def hook(name: str) -> Any:
        def look(module: nn.Module, args: Any) -> None:
            known = next((i for i, x in enumerate(alive) if x is args[0]), len(alive))
            if known == len(alive):
                alive.append(args[0])
            numbers[name] = known

        return look

    linears = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    handles = [module.register_forward_pre_hook(hook(name)) for name, module in linears]
    try:
        meta_forward(model, tokens, 1)
    finally:
        for handle in handles:
            handle.remove()
    return numbers


@torch.no_grad()
def meta_forward(model: nn.Module, tokens: int, batch: int) -> None:
    """One forward on the meta device with inputs from the config."""
    from quant.denoisers import families

    example = families.example(model, batch, tokens)
    if example is None:
        raise TypeError(f"{type(model).__name__} is not a denoiser of a known family")

    def move(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return x.to("meta", torch.bfloat16 if x.is_floating_point() else x.dtype)

    args, kwargs = tree_map(move, example)
    model(*args, **kwargs)


class Blocks:
    """Kinds of residual and transformer blocks, by class and inputs, and the time of a streamed forward."""

    def __init__(self, model: nn.Module, tokens: int, batch: int) -> None:
        from quant.training.blocks import BLOCK

        self.found: dict[Any, dict[str, Any]] = {}
        handles = [
            module.register_forward_pre_hook(self._look, with_kwargs=True)
            for module in model.modules() if BLOCK.fullmatch(type(module).__name__)
        ]  # fmt: skip
        try:
            meta_forward(model, tokens, batch)
        finally:
            for handle in handles:
                handle.remove()

    def _look(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        shapes = [tuple(x.shape) for x in _tensors((args, kwargs))]
        weights = [tuple(p.shape) for p in module.parameters()]
        key = (type(module).__name__, str(shapes), str(weights))
        if key in self.found:
            self.found[key]["count"] += 1
        else:
            self.found[key] = {"module": module, "args": args, "kwargs": kwargs, "count": 1}

    @torch.no_grad()
    def measure(self, device: torch.device, progress: Progress) -> list[dict[str, Any]]:
        """Time one forward of each kind with its layers watched, weights coming from the CPU."""
        from quant.denoisers.offload import streamed

        lines = []
        for number, kind in enumerate(self.found.values()):
            name = type(kind["module"]).__name__
            progress(number, len(self.found), f"forward of {name}")
            block = _filled(copy.deepcopy(kind["module"]))
            args, kwargs = tree_map(lambda x: _like(x, device), (kind["args"], kind["kwargs"]))
            layers = [m for m in block.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
            with streamed(block, device):
                handles = [m.register_forward_pre_hook(_extremes) for m in layers]
                times = []
                for _ in range(2):  # the first also loads libraries
                    start = wait(device)
                    block(*args, **kwargs)
                    times.append(wait(device) - start)
                for handle in handles:
                    handle.remove()
            lines.append({"block": name, "count": kind["count"], "seconds": round(min(times), 4),
                          "parameters": sum(p.numel() for p in block.parameters())})  # fmt: skip
        return lines


def _extremes(module: nn.Module, args: Any) -> None:
    """Do what calibration does with every input: float32, extremes of each channel."""
    x = args[0].float()
    dims = [d for d in range(x.ndim) if d != (1 if isinstance(module, nn.Conv2d) else x.ndim - 1)]
    x.amin(dims), x.amax(dims)


def _tensors(tree: Any) -> Iterator[Tensor]:
    from torch.utils._pytree import tree_leaves

    return (x for x in tree_leaves(tree) if isinstance(x, Tensor))


def _like(x: Any, device: torch.device) -> Any:
    if not isinstance(x, Tensor):
        return x
    if x.is_floating_point():
        return torch.randn(x.shape, device=device, dtype=x.dtype)
    return torch.zeros(x.shape, device=device, dtype=x.dtype)


def wait(device: torch.device) -> float:
    """Wait for the device and return the time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def random_rows(n: int, width: int, device: torch.device, after_gelu: bool = False) -> Tensor:
    """Draw inputs with channels of different sizes and a few salient ones: (n, width), float32."""
    scale = torch.exp(0.5 * torch.randn(width, device=device))
    salient = torch.rand(width, device=device) < 0.01
    rows = torch.randn(n, width, device=device) * torch.where(salient, 20 * scale, scale)
    return nn.functional.gelu(rows) if after_gelu else rows
