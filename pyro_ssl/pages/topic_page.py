"""A page to look into topics, as LDAvis (Sievert & Shirley 2014): a map, and words by relevance.

It is one file with nothing from outside. Its script only shows and hides what is in it; words come
as JSON and are set as text, never as HTML.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..arguments import at_least
from ..datasets import UNKNOWN
from ..storage import write_durably
from .document import document
from .pieces import shown_word
from .topic_map import RELEVANCES, Words, places, shown_words
from .topic_script import SCRIPT, STYLE

__all__ = ["topic_page", "write_topic_page"]

_SIZE = 460  # of the map, in its own units
_LARGEST = 46.0  # radius of the largest circle
_EDGE = 14.0


def write_topic_page(
    path: str | os.PathLike[str],
    model: Any,
    *,
    title: str = "Topics",
    num_words: int = 20,
    leave_out: Collection[str] = (UNKNOWN,),
) -> Path:
    """Write a page to look into the topics of a model, and return its path.

    Topics are circles on a map: the nearer, the more alike their words; the larger, the more of the
    text is theirs. Of the chosen one the page lists words by relevance, whose λ has a slider, each
    with its share of the topic and of the text. Open it in any browser; it needs no network.

    :param path: of an ``.html`` file, which is replaced in one step.
    :param model: a fitted :class:`~pyro_ssl.TopicalSSL`, or an estimator that has one.
    :param str title: plain text.
    :param int num_words: how many words of a topic are listed.
    :param leave_out: words that are not listed, such as stop words.
    :raises ValueError: if there are no words to list.
    :raises RuntimeError: if the model is not fitted.

    Example::

        >>> import tempfile, torch
        >>> from pyro_ssl import TopicalSSL
        >>> ssl, words = TopicalSSL(3, 9, hidden_size=4), torch.randint(9, (7, 12))
        >>> quick = {"markov_steps": 9, "transition_steps": 9, "disable_progbar": True}
        >>> history = ssl.fit(words, num_epochs=1, **quick)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_topic_page(f"{folder}/topics.html", ssl, title="Nine words").name
        'topics.html'
    """
    model = getattr(model, "model_", model)
    phi, occupancy = model._fitted()
    page = topic_page(phi, occupancy, model.vocabulary, title, num_words, leave_out)
    path = Path(path)
    write_durably(path.parent, {path.name: page.encode()})
    return path


def topic_page(
    phi: Tensor,
    occupancy: Tensor,
    vocabulary: Sequence[str],
    title: str,
    num_words: int = 20,
    leave_out: Collection[str] = (),
) -> str:
    """Return the page as HTML; see :func:`write_topic_page`.

    :param Tensor phi: p(word | topic), ``(K, V)``.
    :param Tensor occupancy: ``(K,)``.
    """
    left = set(leave_out)
    if not at_least(1, num_words) or all(word in left for word in vocabulary):
        raise ValueError(
            f"write_topic_page: num_words is {num_words}, and leave_out has {len(left)} words, "
            "expected a word to list at least; write num_words=20, and leave fewer out."
        )
    at, kept = places(phi)
    words = shown_words(phi, occupancy, vocabulary, num_words, leave_out)
    share = occupancy.double().tolist()
    order = sorted(range(len(share)), key=lambda k: -share[k])
    names = [_named(words[k], vocabulary) for k in range(len(share))]
    data = {
        "topics": [_data(k, share[k], words[k], vocabulary) for k in order],
        "count": num_words,
    }
    options = "".join(
        f'<option value="{i}">{k}: {names[k]} ({share[k]:.1%})</option>'
        for i, k in enumerate(order)
    )
    body = _BODY.format(
        title=escape(title),
        number=len(share),
        kept=f"{kept:.0%}",
        map=_map(at, share, order, names),
        options=options,
        last=len(RELEVANCES) - 1,
        usual=RELEVANCES.index(0.6),
        rows="".join(f"<li>{k}: {names[k]}, {share[k]:.1%} of the words</li>" for k in order),
        data=_json(data),
        script=SCRIPT,
    )
    return document(title, body, style=STYLE)


def _named(words: Words, vocabulary: Sequence[str]) -> str:
    """The three likeliest words of a topic, as HTML."""
    first = sorted(range(len(words.ids)), key=lambda i: -words.probs[i])[:3]
    return " ".join(shown_word(vocabulary[words.ids[i]]) for i in first)


def _data(k: int, share: float, words: Words, vocabulary: Sequence[str]) -> dict[str, Any]:
    """What the script reads of a topic."""
    texts = [vocabulary[v] for v in words.ids]
    shown = ["\N{WHITE SQUARE}" if text == UNKNOWN else text for text in texts]
    numbers = {"p": words.probs, "all": words.overall}
    rounded = {name: [float(f"{x:.4g}") for x in values] for name, values in numbers.items()}
    return {"k": k, "share": share, "words": shown, **rounded}


def _json(data: Any) -> str:
    """JSON that ends no script element, and begins none."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _map(at: np.ndarray, share: Sequence[float], order: Sequence[int], names: Sequence[str]) -> str:
    """Circles, the smallest on top, each with its number where that has room."""
    # K circles together cover a fifth of the map at most, the largest of them as much as it may.
    largest = max(max(share), 1e-12)
    radius = min(_LARGEST, 0.25 * _SIZE * math.sqrt(largest / max(sum(share), 1e-12)))
    low, high = at.min(0), at.max(0)
    room = (_SIZE - 2 * (radius + _EDGE)) / (float((high - low).max()) or 1.0)
    at = _SIZE / 2 + room * (at - (low + high) / 2) * np.array([1.0, -1.0])
    circles = []
    for i, k in enumerate(order):
        r = max(radius * math.sqrt(share[k] / largest), 3.0)
        x, y = at[k]
        label = f"Topic {k}: {names[k]}, {share[k]:.1%} of the words"
        text = f'<text x="{x:.1f}" y="{y + 4:.1f}">{k}</text>' if r > 9 else ""
        circles.append(
            f'<g role="button" tabindex="-1" data-i="{i}" aria-label="{label}">'
            f'<title>{label}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>{text}</g>'
        )
    return (
        f'<svg viewBox="0 0 {_SIZE} {_SIZE}" role="group" aria-label="Map of the topics">'
        f"{''.join(circles)}</svg>"
    )


_BODY = """
<h1>{title}</h1>
<p>{number} topics, each a distribution over words. The nearer two circles are, the more alike their
words; the larger a circle, the more of the text is the topic&#8217;s.</p>
<noscript><p>The page&#8217;s own script is switched off; without it there are the likeliest words
alone:</p><ol>{rows}</ol></noscript>
<div class="chooser"><label>Topic <select id="topic">{options}</select></label>
<button id="before" type="button" aria-label="the topic before">&#8249;</button>
<button id="after" type="button" aria-label="the next topic">&#8250;</button></div>
<div class="explorer">
<figure class="map">{map}
<figcaption><small>Choose one by a click, or by the arrow keys. In two dimensions the map has room
for {kept} of the squared Jensen&#8211;Shannon distances: topics may differ though they lie
together.</small></figcaption>
</figure>
<section aria-labelledby="chosen">
<h2 id="chosen" aria-live="polite"></h2>
<label class="slider"><span>Relevance &#955; = <output id="shown"></output></span>
<input id="relevance" type="range" min="0" max="{last}" value="{usual}">
<small><span>0: words that only this topic has</span><span>1: its likeliest words</span></small>
</label>
<ol id="words"></ol>
<p class="note"><i class="key all"></i> how often the word is in the text, <i class="key own"></i>
how often of that in this topic. The figure is the word&#8217;s share of the topic.</p>
</section>
</div>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
"""
