"""Sphinx's settings; ``make docs`` builds the pages in docs/_build/html.

What is not written by hand is made first (``generate.py``): tables of the benchmarks from their
results, the gallery, and the tutorials as they are committed, with the outputs that they have.
"""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from docutils.nodes import Element, SkipNode, math_block
from latex2mathml.converter import convert
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # where ``docs`` and ``benchmarks`` are

generate = importlib.import_module("docs.generate")
package = importlib.import_module("pyro_ssl")

project, author = "pyro_ssl", "The pyro_ssl developers"
copyright = "the pyro_ssl developers"
version = release = package.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_design"]
exclude_patterns = ["_build", "made"]
templates_path: list[str] = []
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme, html_title = "furo", "pyro_ssl"
html_math_renderer, myst_update_mathjax = "mathml", False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}

nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # tutorials may go from a title to a third level

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    "undoc-members": True,  # fields: every method has a docstring, which a test checks
    # of these, what is inherited is not ours
    "inherited-members": "Module,TorchDistribution,TorchDistributionMixin,Distribution,"
    "Exception,tuple,Sequence",
}
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
python_display_short_literal_types = True

# Names of other packages, which have pages of their own, and those of modules that are not public.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|pyro|numpy|np|nn|dist|collections|contextlib|os|pathlib)\..*"),
    (r"py:.*", r"(matplotlib|arviz|xarray|typing|inspect|abc|types|ctypes)\..*"),
    (r"py:class", r"Tensor|Axes|CondIndepStackFrame|ScoreParts|Distribution"),
    (r"py:class", r"Band|Chain|Labels|TokenFiles|Verdict|dict\[str"),
]


def documented(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: Element
) -> Element | None:
    """Resolve a name by its last parts: a class is documented in its room, wherever it is made.

    One that no room lists, but that is there, stays text.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip("~.")
    path = target.split(".")
    end = path[-1:] if path[0] == "pyro_ssl" else path
    python = env.domains.python_domain
    known = [
        name
        for name, found in python.objects.items()
        if name.split(".")[-len(end) :] == end and not found.aliased
    ]
    if len(known) == 1:
        return python.resolve_xref(
            env, node["refdoc"], app.builder, "obj", known[0], node, shown
        )
    return shown if path[0] == "pyro_ssl" and not known and exists(target) else None


def exists(target: str) -> bool:
    """Whether there is such a module, or such a name in one."""
    module, _, name = target.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


def described(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Add what a class extends, if a room lists it, and leave out what a NamedTuple adds by itself."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()
    for base in thing.__bases__ if isinstance(thing, type) else ():
        room = ".".join(base.__module__.split(".")[:2])
        public = getattr(importlib.import_module(room), "__all__", ())
        if room.startswith("pyro_ssl.") and base.__name__ in public:
            lines += ["", f"Extends :class:`~{room}.{base.__name__}`.", ""]


def as_mathml(writer: Any, node: Element) -> None:
    """Write a formula as MathML, which browsers draw by themselves: no script, no network."""
    tex, block = node.astext(), isinstance(node, math_block)
    if block and r"\\" in tex and r"\begin" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    shown = convert(tex, display="block" if block else "inline")
    if unknown := re.search(r">(\\\w+)<", shown):
        logging.getLogger(__name__).warning(
            "formula: %s is not known", unknown[1], location=node
        )
    writer.body.append(f'<div class="formula">{shown}</div>' if block else shown)
    raise SkipNode


def setup(app: Sphinx) -> None:
    """Make the pages that are made, before Sphinx looks for pages."""
    generate.make(Path(app.srcdir))
    app.add_html_math_renderer("mathml", (as_mathml, None), (as_mathml, None))
    app.connect("missing-reference", documented)
    app.connect("autodoc-process-docstring", described)
