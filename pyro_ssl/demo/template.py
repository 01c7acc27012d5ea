"""The page's HTML, with ``$fields`` for :mod:`pyro_ssl.demo.page` to fill in."""

from string import Template

from ..pages import document

__all__ = ["PAGE"]

# Colours of passages are mixed with white, by night too; so their words are dark.
_STYLE = """
.passage { max-width: none; line-height: 2.15; margin: 0 0 1.6rem; padding-bottom: 1.2rem;
  border-bottom: 1px solid var(--line); }
.passage span { padding: .14rem .3rem; border-radius: 4px; position: relative; cursor: default;
  color: #222; white-space: nowrap; }
.passage sub { color: #555; font-size: .6rem; margin-left: .15rem; line-height: 0; }
.passage span:hover { outline: 2px solid var(--faint); }
.passage span:hover::after { content: attr(data-tip); position: absolute; left: 0; top: 115%;
  z-index: 2; background: #222; color: #fff; font-size: .8rem; line-height: 1.4;
  padding: .3rem .6rem; border-radius: 4px; pointer-events: none; }
.legend { list-style: none; display: grid; gap: .3rem 1.5rem; padding: 0; margin: 1rem 0 1.6rem;
  grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); font-size: .9rem; }
.legend .chip { flex: none; }
"""

#: ``PAGE.substitute(fields)`` is the page.
PAGE = Template(
    document(
        "Topics with a memory",
        """
<h1>Topics with a memory</h1>
<p>A state space LSTM read $train_words words of the <em>$name</em> and sorted them, word by word,
into $num_topics topics. Each word is drawn from its topic alone; an LSTM over the <em>topics</em>
predicts the next one from all before it. The topics of a text are drawn jointly from their
posterior, by particle Gibbs.</p>
<div class="figures">
<div><b>$ssl</b><span>perplexity per word of unseen text</span></div>
<div><b>$under_unigram</b><span>under a unigram&#8217;s</span></div>
<div><b>$against_hmm</b><span>that of an exact HMM with as many states</span></div>
</div>

<h2>How well it predicts</h2>
<p>Perplexity is exp(&#8722;mean log p(word | the words before it)): how many equally likely words
the next one could be. Lower is better. The test text has $test_words words.</p>
<div class="wide"><table class="comparison">
<tr><th></th><th></th><th>test perplexity</th><th>against unigram</th><th>against HMM</th></tr>
$comparison
</table></div>
<img alt="Perplexity per epoch" src="data:image/png;base64,$perplexity_png">
<p class="note">The fit starts from the HMM. Of $num_epochs epochs the one with the lowest
<em>validation</em> perplexity is kept, number $kept; the HMM too stops where validation is best.
The test text is only looked at.</p>

<h2>Texts, word by word</h2>
<p>Passages that the model has not learned from. A word&#8217;s colour is its likeliest topic given
the whole passage, the number beside it names that topic, and the stronger the colour, the surer
it is. Point at a word to read more. &#9633; is a word outside the vocabulary of $vocabulary.</p>
<ul class="legend">$legend</ul>
$passages

<h2>The topics</h2>
<p>By falling share of the words. Bars and figures: the likeliest words with their probabilities
in per cent. Below: the words that set the topic apart from the others. Colours are those of the
passages above.</p>
$topics

<h2>Are they different?</h2>
<p>Any two samples of one text differ a little. The right column shows how much: topics of the same
sizes, each estimated from draws of one and the same unigram.</p>
<table>
<tr><th></th><th>these topics</th><th>same but for chance</th></tr>
<tr><td>mean Jensen&#8211;Shannon divergence of two topics, in bits (0 equal, 1 disjoint)</td>
<td>$divergence</td><td>$chance_divergence</td></tr>
<tr><td>top-10 words that one topic alone has</td><td>$unique</td><td>$chance_unique</td></tr>
</table>

<h2>How it was made</h2>
<p>Settings: $settings. $seconds seconds in all, this page included. In the last epoch the sampler
gave $moved of the latent topics a new value; one that is stuck would show 0.</p>
<details><summary>Every epoch</summary>
<div class="wide"><table>
<tr><th>epoch</th><th>test</th><th>validation</th><th>latents moved</th><th>seconds</th></tr>
$epochs
</table></div>
</details>
""",
        style=_STYLE,
    )
)
