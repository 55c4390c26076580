"""How a kernel is cut into tiles: the numbers that tuning chooses and the table holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Config:
    """Tile sizes and launch options of one kernel; a kernel reads those that it has.

    Attributes
    ----------
    block_m, block_n, block_k : int
        Rows, columns and depth of a tile.
    stages, warps : int
        Depth of the software pipeline; warps of a program.
    group_m : int
        Tile rows that are walked together.
    halves : {1, 2}
        In how many pieces the epilogue stores a tile, or few rows multiply a step; 2 needs less memory.
    split : int
        Programs that share one sum over K.
    keep : bool
        Keep what was read in registers for a second pass instead of reading it again.
    early : bool
        Fetch what the epilogue needs before the sum.
    special : bool
        Some warps do nothing but fetch; `warps` counts those of one group of the others.
    queued : bool
        The product of a step starts before the one before it has ended (int8; `warps` are 8 or 4).
    vendor : bool
        torch's own product of the same operands, instead of a kernel.
    """

    block_m: int = 128
    block_n: int = 128
    block_k: int = 128
    stages: int = 3
    warps: int = 8
    group_m: int = 8
    halves: int = 1
    split: int = 1
    keep: bool = False
    early: bool = False
    special: bool = False
    queued: bool = False
    vendor: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values, without those that are as by default."""
        plain = Config()
        return {key: value for key, value in asdict(self).items() if value != getattr(plain, key)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Config:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            A name that is not a field.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown tuning field {unknown[0]!r}, known: {', '.join(sorted(known))}")
        return cls(**values)

    def unqueued(self) -> Config:
        """Tiles for a kernel that waits for every product: steps of 128 and more, as many bytes ahead."""
        if not self.queued:
            return self
        deeper = max(1, 128 // self.block_k)
        stages = max(2, -(-self.stages // deeper))
        return replace(self, queued=False, block_k=self.block_k * deeper, stages=stages)

    @property
    def label(self) -> str:
        """Short text for tables and logs."""
        more = "".join(
            f" {name}{'' if getattr(self, name) is True else getattr(self, name)}"
            for name in ("halves", "split", "keep", "early", "special", "queued", "vendor")
            if getattr(self, name) != getattr(Config, name)
        )
        return (
            f"{self.block_m}x{self.block_n}x{self.block_k} s{self.stages} w{self.warps} g{self.group_m}{more}"
        )
