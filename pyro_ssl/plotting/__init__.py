"""Pictures of what a model has learned; needs matplotlib (``pip install pyro-ssl[plots]``).

Every function draws into ``ax``, or into a figure of its own, and returns the Axes.
"""

from .ahead import plot_importance_ahead
from .belief import plot_dependency_graph, plot_memory_horizon
from .colors import OTHER, PALETTE, topic_colors
from .curves import LINE_COLORS, label_right, plot_perplexity
from .fidelity import plot_beliefs, plot_fidelity, plot_linear_gap
from .importance import (
    plot_explanation,
    plot_forecast,
    plot_importance,
    plot_temporal_importance,
)
from .sensors import plot_imputed, plot_scores, plot_simulated
from .topics import plot_topic_path, plot_topics
from .tracks import plot_coordinates, plot_track

__all__ = [
    "LINE_COLORS",
    "OTHER",
    "PALETTE",
    "label_right",
    "plot_beliefs",
    "plot_coordinates",
    "plot_dependency_graph",
    "plot_explanation",
    "plot_fidelity",
    "plot_forecast",
    "plot_importance",
    "plot_importance_ahead",
    "plot_imputed",
    "plot_linear_gap",
    "plot_memory_horizon",
    "plot_perplexity",
    "plot_scores",
    "plot_simulated",
    "plot_temporal_importance",
    "plot_topic_path",
    "plot_topics",
    "plot_track",
    "topic_colors",
]
