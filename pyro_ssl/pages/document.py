"""The frame of a page: its head, and the style that all pages share, by day and by night."""

from __future__ import annotations

from html import escape

__all__ = ["document"]

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --faint: #6b6b6b; --line: #e4e4e4;
  --accent: #0077bb; --bar: #c4cdd5; --second: #b8501f; --shade: 1; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e4e6e8; --faint: #9aa1a9; --line: #33383f; --accent: #58b4f0;
    --bar: #56616c; --second: #f0935f; --shade: .42; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 3rem 1.5rem 5rem; color: var(--ink);
  background: var(--paper); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3.2rem 0 .4rem; }
h3 { margin: 0 0 .35rem; font-size: 1rem; display: flex; align-items: center; gap: .5rem; }
p { margin: .4rem 0 1rem; max-width: 46rem; }
small, .note { color: var(--faint); font-size: .85rem; font-weight: 400; }
code, pre { font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { white-space: pre-wrap; border-left: 3px solid var(--accent); margin: .6rem 0 1rem;
  padding: .2rem 0 .2rem .9rem; }
img { width: 100%; height: auto; display: block; margin: 1.2rem 0; }
.figures { display: flex; gap: 1.2rem 3rem; margin: 1.8rem 0 0; flex-wrap: wrap; }
.figures b { display: block; font-size: 2.1rem; line-height: 1.1; color: var(--accent);
  font-weight: 600; }
.figures span { color: var(--faint); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th { font-weight: 500; color: var(--faint); font-size: .85rem; }
th, td { text-align: right; padding: .35rem .9rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.bar { width: 16rem; padding: 0 .5rem; }
td.bar i { display: block; height: .9rem; background: var(--bar); border-radius: 2px; }
tr:last-child td.bar i { background: var(--accent); }
.comparison tr:last-child { font-weight: 600; }
.chip { display: inline-block; min-width: 1.8rem; text-align: center; border-radius: 4px;
  font-size: .85rem; font-weight: 600; padding: .05rem .3rem; color: #222; }
.chip.plain { color: inherit; box-shadow: inset 0 0 0 1px var(--bar); }
.topics { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr));
  gap: 1.8rem 1.4rem; margin-top: 1.4rem; }
.topic h3 { justify-content: space-between; }
.topic ol { list-style: none; margin: 0; padding: 0; font-size: .87rem; }
.topic li { position: relative; display: flex; justify-content: space-between; line-height: 1.45;
  margin-bottom: 2px; padding: 0 .35rem; }
.topic li i { position: absolute; left: 0; top: 0; bottom: 0; border-radius: 2px;
  opacity: var(--shade); }
.topic li b { position: relative; font-weight: 400; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.topic li em { position: relative; font-style: normal; color: var(--faint); font-size: .78rem;
  font-variant-numeric: tabular-nums; }
.topic p { font-size: .8rem; line-height: 1.4; margin: .35rem 0 0; padding: 0 .35rem; }
.topic p small { font-size: inherit; }
.topic ol { display: none; }
#order0:checked ~ .topics .order0, #order1:checked ~ .topics .order1,
#order2:checked ~ .topics .order2 { display: block; }
.order { color: var(--faint); font-size: .9rem; margin-right: .4rem; }
input[name=order] { position: absolute; opacity: 0; }
input[name=order] + label { display: inline-block; padding: .15rem .7rem; margin: 0 .3rem .3rem 0;
  border: 1px solid var(--line); border-radius: 1rem; font-size: .85rem; cursor: pointer; }
input[name=order]:checked + label { border-color: var(--accent); color: var(--accent); }
input[name=order]:focus-visible + label { outline: 2px solid var(--accent); }
.topics + h3 { margin: 2.4rem 0 .2rem; font-size: 1.1rem; }
.glue { list-style: none; padding: 0; margin: .8rem 0; display: grid; gap: .3rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); font-size: .9rem; }
.glue li { display: grid; grid-template-columns: 2.2rem 1fr 3rem; align-items: baseline;
  gap: .5rem; }
.glue small { text-align: right; }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; font-size: .9rem; margin: .6rem 0; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px;
  margin-right: .4rem; }
.bars { list-style: none; padding: 0; margin: .6rem 0 1rem; max-width: 46rem; }
.bars li { display: grid; grid-template-columns: 14rem 1fr; gap: .2rem 1rem; align-items: center;
  padding: .45rem 0; border-top: 1px solid var(--line); }
.bars div div { display: flex; align-items: center; gap: .45rem; line-height: 1.15; }
.bars div i { height: .7rem; min-width: 1px; border-radius: 2px; }
.bars em { font-style: normal; font-size: .78rem; color: var(--faint);
  font-variant-numeric: tabular-nums; }
.bar0 { background: var(--accent); }
.bar1 { background: var(--second); }
.bar2 { background: var(--bar); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr));
  gap: 1.4rem 2rem; margin-top: 1.2rem; }
.charts figure { margin: 0; max-width: 34rem; }
figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .2rem; }
figcaption small { display: block; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--faint); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); }
svg .curve { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; }
svg .level { stroke: var(--second); stroke-dasharray: 5 4; }
svg text.level { fill: var(--second); stroke: var(--paper); stroke-width: 4px; paint-order: stroke;
  stroke-linejoin: round; }
svg .mark { fill: var(--accent); stroke: var(--paper); stroke-width: 2; }
svg .band { fill: var(--accent); fill-opacity: .2; }
svg .point { fill: var(--faint); }
svg .spot { fill: var(--accent); fill-opacity: 0; }
svg .spot:hover { fill-opacity: .5; }
summary { cursor: pointer; color: var(--accent); margin: 1rem 0; }
@media (max-width: 30rem) {
  body { padding: 1.6rem 1rem 3rem; }
  h1 { font-size: 1.6rem; }
  h2 { margin-top: 2.4rem; }
  th, td { padding: .3rem .45rem; }
  td.bar { width: 4rem; padding: 0 .2rem; }
  .figures b { font-size: 1.7rem; }
  .topics { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
  .bars li { grid-template-columns: 1fr; }
}
"""


def document(title: str, body: str, *, style: str = "", refresh: int | None = None) -> str:
    """Return a page as HTML.

    :param str title: plain text.
    :param str body: HTML; its ``$fields`` may be filled in afterwards, by ``string.Template``.
    :param str style: CSS of this page alone.
    :param int refresh: seconds after which a browser reads the page again.

    Example::

        >>> page = document("A & B", "<p>Text</p>", refresh=5)
        >>> "<title>A &amp; B</title>" in page, 'http-equiv="refresh" content="5"' in page
        (True, True)
    """
    again = "" if refresh is None else f'\n<meta http-equiv="refresh" content="{refresh}">'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">{again}
<title>{escape(title)}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
{body.strip()}
</body>
</html>
"""
