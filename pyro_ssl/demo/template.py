"""The page's HTML and CSS, with ``$fields`` for :mod:`pyro_ssl.demo.page` to fill in."""

from string import Template

__all__ = ["PAGE"]

STYLE = """
:root { --ink: #222; --faint: #6b6b6b; --line: #e4e4e4; --accent: #0077bb; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 3rem 1.5rem 5rem; color: var(--ink);
  background: #fff; font: 16px/1.55 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3.2rem 0 .4rem; }
h3 { margin: 0 0 .35rem; font-size: 1rem; display: flex; align-items: center; gap: .5rem; }
p { margin: .4rem 0 1rem; max-width: 46rem; }
small, .note { color: var(--faint); font-size: .85rem; font-weight: 400; }
img { width: 100%; height: auto; display: block; margin: 1.2rem 0; }
.figures { display: flex; gap: 3rem; margin: 1.8rem 0 0; flex-wrap: wrap; }
.figures b { display: block; font-size: 2.1rem; line-height: 1.1; color: var(--accent);
  font-weight: 600; }
.figures span { color: var(--faint); font-size: .9rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th { font-weight: 500; color: var(--faint); font-size: .85rem; }
th, td { text-align: right; padding: .35rem .9rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.bar { width: 16rem; padding: 0 .5rem; }
td.bar i { display: block; height: .9rem; background: #c4cdd5; border-radius: 2px; }
tr:last-child td.bar i { background: var(--accent); }
.comparison tr:last-child { font-weight: 600; }
.passage { max-width: none; line-height: 2.15; margin: 0 0 1.6rem; padding-bottom: 1.2rem;
  border-bottom: 1px solid var(--line); }
.passage span { padding: .14rem .3rem; border-radius: 4px; position: relative; cursor: default;
  white-space: nowrap; }
.passage sub { color: #555; font-size: .6rem; margin-left: .15rem; line-height: 0; }
.passage span:hover { outline: 2px solid #444; }
.passage span:hover::after { content: attr(data-tip); position: absolute; left: 0; top: 115%;
  z-index: 2; background: #222; color: #fff; font-size: .8rem; line-height: 1.4;
  padding: .3rem .6rem; border-radius: 4px; pointer-events: none; }
.chip { display: inline-block; min-width: 1.8rem; text-align: center; border-radius: 4px;
  font-size: .85rem; font-weight: 600; padding: .05rem .3rem; }
.legend { list-style: none; display: grid; gap: .3rem 1.5rem; padding: 0; margin: 1rem 0 1.6rem;
  grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); font-size: .9rem; }
.topics { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr));
  gap: 1.8rem 1.4rem; margin-top: 1.4rem; }
.topic h3 { justify-content: space-between; }
.topic ol { list-style: none; margin: 0; padding: 0; font-size: .87rem; }
.topic li { position: relative; display: flex; justify-content: space-between; line-height: 1.45;
  margin-bottom: 2px; padding: 0 .35rem; }
.topic li i { position: absolute; left: 0; top: 0; bottom: 0; border-radius: 2px; }
.topic li b { position: relative; font-weight: 400; }
.topic li em { position: relative; font-style: normal; color: var(--faint); font-size: .78rem;
  font-variant-numeric: tabular-nums; }
.topic p { font-size: .8rem; line-height: 1.4; margin: .4rem 0 0; }
.topic p small { font-size: inherit; }
summary { cursor: pointer; color: var(--accent); margin: 1rem 0; }
"""

#: ``PAGE.substitute(fields)`` is the page.
PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Topics with a memory</title>
<style>"""
    + STYLE
    + """</style>
</head>
<body>
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
<table class="comparison">
<tr><th></th><th></th><th>test perplexity</th><th>against unigram</th><th>against HMM</th></tr>
$comparison
</table>
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
<div class="topics">
$topics
</div>

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
<table>
<tr><th>epoch</th><th>test</th><th>validation</th><th>latents moved</th><th>seconds</th></tr>
$epochs
</table>
</details>
</body>
</html>
"""
)
