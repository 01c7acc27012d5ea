"""The first page's picture: ``python -m docs.picture`` draws it anew, in docs/_static/home.png.

Two of the four curves that ``python -m pyro_ssl.demo.curves`` follows, large enough for a phone.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from pyro_ssl.demo.curves import follow
from pyro_ssl.plotting import plot_track

KINDS = ("circle", "swiss roll")


def main() -> None:
    """Fit, and draw."""
    torch.set_num_threads(1)
    figure = Figure(figsize=(8.4, 4.7), layout="constrained")
    panels = figure.subplots(1, len(KINDS))
    for ax, kind in zip(panels, KINDS, strict=True):
        found = follow(kind, seed=1, num_epochs=60)
        plot_track(
            found.curve.x,
            found.smoothed,
            found.forecast,
            truth=found.curve.z,
            legend=False,
            ax=ax,
        )
        ax.set_axis_off()
    handles, names = panels[0].get_legend_handles_labels()
    where = {
        "loc": "outside lower center",
        "ncols": 3,
        "frameon": False,
        "fontsize": 15,
    }
    figure.legend(handles, names, **where)
    figure.savefig(Path(__file__).parent / "_static" / "home.png", dpi=110)


if __name__ == "__main__":
    main()
