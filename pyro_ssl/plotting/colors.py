"""Colours for topics: few, told apart by colour-blind readers, pale enough for black text."""

from torch import Tensor

__all__ = ["OTHER", "PALETTE", "topic_colors"]

#: Paul Tol's "light" scheme (personal.sron.nl/~pault), made for text on coloured backgrounds; the
#: darker of its two greens is last, and its grey is :data:`OTHER`.
PALETTE: tuple[str, ...] = (
    "#77AADD",
    "#EE8866",
    "#EEDD88",
    "#FFAABB",
    "#44BB99",
    "#BBCC33",
    "#99DDFF",
    "#AAAA00",
)

#: The colour of all topics that have none of their own.
OTHER = "#DDDDDD"


def topic_colors(usage: Tensor, num_colors: int = len(PALETTE)) -> list[str]:
    """Give each of the topics that a picture uses most a colour, and grey to all others.

    No palette keeps 30 topics apart, least of all for a colour-blind reader. So a picture colours
    those that it shows most often, and gives every topic's number as well.

    :param Tensor usage: ``(K,)``, how much of the picture each topic takes; or the posterior of
        the words shown, ``(..., K)``, which is summed.
    :param int num_colors: how many topics to colour, at most.
    :returns: K colours, as ``"#rrggbb"``.

    **Example**::

        >>> import torch
        >>> topic_colors(torch.tensor([0.1, 0.9, 0.0]))
        ['#EE8866', '#77AADD', '#DDDDDD']
    """
    usage = usage.detach().reshape(-1, usage.shape[-1]).sum(0)
    colors = [OTHER] * len(usage)
    order = usage.argsort(descending=True, stable=True).tolist()
    used = [k for k in order if usage[k] > 0]
    for k, color in zip(used[:num_colors], PALETTE, strict=False):
        colors[k] = color
    return colors
