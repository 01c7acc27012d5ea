"""Pictures of what a topical SSL has learned; needs matplotlib (``pip install pyro-ssl[plots]``).

Every function draws into ``ax``, or into a figure of its own, and returns the Axes.
"""

from .colors import OTHER, PALETTE, topic_colors
from .curves import plot_perplexity
from .topics import plot_topic_path, plot_topics

__all__ = [
    "OTHER",
    "PALETTE",
    "plot_perplexity",
    "plot_topic_path",
    "plot_topics",
    "topic_colors",
]
