"""The style and the script of the topics' page."""

__all__ = ["SCRIPT", "STYLE"]

STYLE = """
.explorer { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 2rem; }
.explorer figure { margin: 0; }
.explorer h2 { margin: 0 0 .8rem; }
.chooser { display: flex; gap: .5rem; align-items: end; margin: 1.2rem 0; }
.chooser label { flex: 0 1 26rem; min-width: 0; font-weight: 600; }
.chooser select { width: 100%; }
.chooser select, .chooser button { font: inherit; font-weight: 400; color: inherit;
  background: var(--paper); border: 1px solid var(--faint); border-radius: 6px;
  min-height: 2.75rem; padding: .3rem .7rem; }
.chooser button { min-width: 2.75rem; cursor: pointer; }
.map g { cursor: pointer; outline: none; }
.map circle { fill: var(--accent); fill-opacity: .28; stroke: var(--accent); stroke-width: 1; }
.map g:hover circle { fill-opacity: .5; }
.map g[aria-pressed="true"] circle { fill: var(--second); fill-opacity: .6;
  stroke: var(--second); }
.map g:focus-visible circle { stroke: var(--ink); stroke-width: 3; }
.map text { fill: var(--ink); text-anchor: middle; pointer-events: none; }
.slider { display: block; }
.slider input { width: 100%; height: 2rem; accent-color: var(--second); }
.slider small { display: flex; justify-content: space-between; gap: 1rem; }
.slider small span:last-child { text-align: right; }
#words { list-style: none; margin: 1rem 0 0; padding: 0; font-size: .92rem; }
#words li { display: grid; grid-template-columns: 8.5rem 1fr 3.4rem; gap: .6rem;
  align-items: center; line-height: 1.6; }
#words b { font-weight: 400; text-align: right; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
#words span, .key { position: relative; background: var(--bar); height: .85rem;
  border-radius: 2px; display: block; min-width: 1px; }
#words i, .key.own { background: var(--second); border-radius: 2px; }
#words i { position: absolute; left: 0; top: 0; bottom: 0; }
#words em { font-style: normal; color: var(--faint); font-size: .82rem; text-align: right;
  font-variant-numeric: tabular-nums; }
.key { display: inline-block; width: 1.6rem; vertical-align: -.1rem; }
@media (max-width: 50rem) {
  .explorer { grid-template-columns: minmax(0, 1fr); gap: 1.2rem; }
  .map svg { max-width: 26rem; margin: 0 auto; }
  #words li { grid-template-columns: 7rem 1fr 3.2rem; }
}
"""

SCRIPT = """
"use strict";
const { topics, count } = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const circles = [...document.querySelectorAll(".map g")];
let chosen = 0;

function listed(topic, relevance) {
  const scores = topic.p.map((p, i) =>
    Math.log(p) - (1 - relevance) * Math.log(topic.all[i]));
  return scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]).slice(0, count);
}

function show() {
  const topic = topics[chosen], relevance = at("relevance").value / at("relevance").max;
  at("shown").value = relevance.toFixed(2);
  at("chosen").textContent = `Topic ${topic.k}, ${(100 * topic.share).toFixed(1)} % of the words`;
  const words = listed(topic, relevance);
  const most = Math.max(...words.map((i) => topic.all[i]));
  at("words").replaceChildren(...words.map((i) => {
    const [row, word, bar, own, figure] =
      ["li", "b", "span", "i", "em"].map((tag) => document.createElement(tag));
    word.textContent = word.title = topic.words[i];
    bar.style.width = `${100 * topic.all[i] / most}%`;
    own.style.width = `${Math.min(100, 100 * topic.share * topic.p[i] / topic.all[i])}%`;
    figure.textContent = `${(100 * topic.p[i]).toFixed(topic.p[i] < 0.00995 ? 2 : 1)} %`;
    bar.append(own);
    row.append(word, bar, figure);
    return row;
  }));
  circles.forEach((circle, i) => {
    circle.setAttribute("aria-pressed", i === chosen);
    circle.setAttribute("tabindex", i === chosen ? 0 : -1);
  });
  at("topic").value = chosen;
}

function choose(i, focus) {
  chosen = (i + topics.length) % topics.length;
  show();
  if (focus) circles[chosen].focus();
}

circles.forEach((circle, i) => {
  circle.addEventListener("click", () => choose(i));
  circle.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) { event.preventDefault(); choose(i + step, true); }
  });
});
at("topic").addEventListener("change", (event) => choose(+event.target.value));
at("before").addEventListener("click", () => choose(chosen - 1));
at("after").addEventListener("click", () => choose(chosen + 1));
at("relevance").addEventListener("input", show);
show();
"""
