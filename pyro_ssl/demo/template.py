"""The page's HTML, with ``$fields`` for :mod:`pyro_ssl.demo.page` to fill in."""

from string import Template

from ..pages import document

__all__ = ["MEMORY", "PAGE"]

_STYLE = """
.passage { max-width: none; line-height: 2; margin: 0 0 1.2rem; }
.passage span { padding: .12rem .25rem; border-radius: 4px; position: relative; cursor: default;
  white-space: nowrap; }
.passage span[style] { background: rgb(var(--c) / calc(var(--p) * var(--shade))); }
.passage sub { color: var(--faint); font-size: .62rem; margin-left: .12rem; line-height: 0; }
.passage span[style] sub { color: inherit; opacity: .75; }
.passage span:hover { outline: 2px solid var(--faint); }
.passage span:hover::after { content: attr(data-tip); position: absolute; left: 0; top: 115%;
  z-index: 2; background: #222; color: #fff; font-size: .8rem; line-height: 1.4;
  padding: .3rem .6rem; border-radius: 4px; pointer-events: none; }
.legend { list-style: none; display: grid; gap: .3rem 1.5rem; padding: 0; margin: 1rem 0 1.4rem;
  grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); font-size: .9rem; }
.history { display: flex; gap: .7rem; align-items: baseline; margin: .2rem 0; }
.history .passage { margin: 0; }
.history .passage span:last-child { border: 1.5px solid currentColor; margin-left: 1.6rem; }
.history .passage span:last-child::before { content: "\\2192"; position: absolute; left: -1.4rem; }
.mark0, .mark1 { font-size: 1.15rem; }
.mark0 { color: var(--accent); }
.mark1 { color: var(--second); }
@media (max-width: 30rem) {
  .comparison .bar, .comparison th:nth-child(2) { display: none; }
  .passage { line-height: 1.9; }
  .passage span { padding: .1rem .18rem; }
  .passage span:hover::after { position: fixed; left: 1rem; right: 1rem; top: auto; bottom: 1rem;
    white-space: normal; }
}
"""

#: What the page has on two histories.
MEMORY = Template("""
<h2>What it remembers</h2>
<p>Two places in the test text where the last topic is the same, $chip ($words). A hidden Markov
model looks at that topic alone, so it must expect the same next topic at both. The LSTM has read
all topics before it, and does not. In the frames: the word that came next.</p>
$histories
<p>Which topic comes next? After A the LSTM expects $first with $first_share, after B $second with
$second_share.</p>
$bars
<p class="note">A and B differ by <b>$distance</b> in total variation: the share of the probability
that would have to move to make one the other. This is the most of all $num_pairs pairs of places
with the same last topic; their mean is $typical, and an HMM&#8217;s is 0. The HMM is the one that
the fit began with.</p>
""")

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

<h2>A text, word by word</h2>
<p>A passage that the model has not learned from. A word&#8217;s colour is its likeliest topic given
the whole passage, and the stronger, the surer; the number names the topic for who cannot see the
colour. Point at a word to read more. &#9633; stands for any word outside the vocabulary of
$vocabulary, $unknown of this text; to the model they are all one word, which the lists leave
out.</p>
$legend
$passage
<details><summary>More passages</summary>
$more_passages
</details>
$memory
<h2>The topics</h2>
<p>By falling share of the words. Listed are content words, with their probabilities in the topic in
per cent; below a list, function words that are as likely. NPMI is how well the first list holds
together: 1 where its words only occur in the same passages, 0 where they meet as by chance,
&#8722;1 where they never do.</p>
$topics

<h2>How well it predicts</h2>
<p>Perplexity is exp(&#8722;mean log p(word | the words before it)): how many equally likely words
the next one could be. Lower is better. The test text has $test_words words.</p>
<div class="wide"><table class="comparison">
<tr><th></th><th></th><th>test perplexity</th><th>against unigram</th><th>against HMM</th></tr>
$comparison
</table></div>
<div class="charts">$charts</div>
<p class="note">The fit starts from the HMM. Of $num_epochs epochs the one with the lowest
<em>validation</em> perplexity is kept, number $kept; the HMM too stops where validation is best.
The test text is only looked at.</p>
<details><summary>Every epoch</summary>
<div class="wide"><table>
<tr><th>epoch</th><th>test</th><th>validation</th><th>latents moved</th><th>seconds</th></tr>
$epochs
</table></div>
</details>

<h2>Are the topics different?</h2>
<p>Any two samples of one text differ a little. The right column shows how much: topics of the same
sizes, each estimated from draws of one and the same unigram.</p>
<div class="wide"><table>
<tr><th></th><th>these topics</th><th>same but for chance</th></tr>
<tr><td>mean Jensen&#8211;Shannon divergence of two topics, in bits (0 equal, 1 disjoint)</td>
<td>$divergence</td><td>$chance_divergence</td></tr>
<tr><td>top-10 words that one topic alone has</td><td>$unique</td><td>$chance_unique</td></tr>
</table></div>

<h2>How it was made</h2>
<p>Settings: $settings. $seconds seconds in all, this page included.</p>
""",
        style=_STYLE,
    )
)
