"""Figures as pure functions: plain arrays and mappings in, a `Plate` (figure, caption, alternative text) out.

The app, the widgets, the command line and the reports all call these. Colours are safe for colour-blind
readers (Okabe-Ito for kinds, cividis and viridis for amounts), nothing is told by colour alone, and every
caption ends with where its numbers come from (`Provenance`). Nothing touches pyplot's global state.
"""

from lab.figures.activations import activation_surfaces, channel_timestep_map
from lab.figures.attention import score_histogram, sink_mass
from lab.figures.brain.categories import category_accuracies, confusion_matrices
from lab.figures.brain.pictures import ROWS, choose, picture_grid, picture_png
from lab.figures.brain.scores import MetricRow, metric_rows, score_chart
from lab.figures.brain.slices import brain_slices, response_profile
from lab.figures.brain.voxels import voxel_scores
from lab.figures.curves import training_curve
from lab.figures.distributions import channel_histogram, drift_bands, level_histogram
from lab.figures.layers import sorted_layers, statistic_bars
from lab.figures.ledger import LayerRow, layer_bytes, layer_rows, mac_shares, share_of_macs
from lab.figures.plate import Plate, Provenance
from lab.figures.ranges import axis_ranges, skip_ranges

__all__ = [
    "ROWS",
    "LayerRow",
    "MetricRow",
    "Plate",
    "Provenance",
    "activation_surfaces",
    "axis_ranges",
    "brain_slices",
    "category_accuracies",
    "channel_histogram",
    "channel_timestep_map",
    "choose",
    "confusion_matrices",
    "drift_bands",
    "layer_bytes",
    "layer_rows",
    "level_histogram",
    "mac_shares",
    "metric_rows",
    "picture_grid",
    "picture_png",
    "response_profile",
    "score_chart",
    "score_histogram",
    "share_of_macs",
    "sink_mass",
    "skip_ranges",
    "sorted_layers",
    "statistic_bars",
    "training_curve",
    "voxel_scores",
]
