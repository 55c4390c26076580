"""Look at a model before it is quantized: `quant.observe` and what it returns."""

from quant.observation.result import Observation, check_statistic
from quant.observation.rows import STATISTICS
from quant.observation.run import observe, select_layers
from quant.observation.stats import OUTLIER_RULE, AttentionStats, TensorStats, WeightStats
from quant.observation.transforms import grid_levels, hadamard, smooth

__all__ = [
    "OUTLIER_RULE", "STATISTICS", "AttentionStats", "Observation", "TensorStats", "WeightStats",
    "check_statistic", "grid_levels", "hadamard", "observe", "select_layers",
    "smooth",
]  # fmt: skip
