"""What is made before Sphinx runs: the tutorials' pages and their gallery, and benchmark tables.

``python -m docs.generate`` writes them into docs/made and docs/tutorials, which git ignores.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from base64 import b64decode
from pathlib import Path
from typing import Any, NamedTuple

from docs import benchmark_tables

__all__ = ["Tutorial", "make", "read_tutorial"]

ROOT = Path(__file__).resolve().parents[1]
#: committed notebooks, with the outputs that they have
NOTEBOOKS = ROOT / "tutorials"

GALLERY = """# Tutorials

Notebooks with the outputs that their code gave, from top to bottom; the tests run them all again.
In the repository they are in `tutorials/`, and `make tutorials` runs them in full.

::::{{grid}} 1 1 2 2
:gutter: 3

{cards}
::::

```{{toctree}}
:hidden:

{names}
```
"""

CARD = """:::{{grid-item-card}} {number}. {title}
:link: {name}
:link-type: doc
:img-top: ../made/thumbnails/{name}.png
:img-alt: A picture from the tutorial "{title}"
:class-card: tutorial

{lesson}
:::"""


class Tutorial(NamedTuple):
    """What the gallery shows of a notebook."""

    title: str
    lesson: str  # the first thing that it teaches
    picture: bytes  # the last one that it draws and that is wider than high, PNG


def read_tutorial(path: Path) -> Tutorial:
    """Read a committed notebook.

    :raises ValueError: if it has no title, no list of what it teaches, or no picture.
    """
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join(
        "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
    )
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    pictures = [
        o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})
    ]
    title = re.search(r"^# (.+)", text, re.M)
    lesson = re.search(r"^\* (.+(?:\n  .+)*)", text, re.M)
    if not (title and lesson and pictures):
        raise ValueError(
            f"{path.name}: found title {title and title[1]!r}, a list {lesson is not None}, "
            f"{len(pictures)} pictures; expected a '# title', a list of what it teaches ('* ...') "
            "and a picture."
        )
    decoded = [b64decode(picture) for picture in pictures]
    fitting = [picture for picture in decoded if 1.2 < _shape(picture) < 3.2]
    first = " ".join(lesson[1].split()).rstrip(";.:")
    return Tutorial(
        title[1], first[0].upper() + first[1:] + ".", (fitting or decoded)[-1]
    )


def _shape(picture: bytes) -> float:
    """Width over height, of a PNG's header."""
    width, height = struct.unpack(">II", picture[16:24])
    return width / height


def make_tutorials(folder: Path) -> None:
    """Copy the notebooks to where Sphinx reads them, and write the gallery beside them."""
    pages, thumbnails = folder / "tutorials", folder / "made" / "thumbnails"
    for place in (pages, thumbnails):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    cards, names = [], []
    for number, path in enumerate(sorted(NOTEBOOKS.glob("*.ipynb")), 1):
        found = read_tutorial(path)
        shutil.copyfile(path, pages / path.name)
        (thumbnails / f"{path.stem}.png").write_bytes(found.picture)
        shown = {"title": found.title, "lesson": found.lesson, "name": path.stem}
        cards.append(CARD.format(number=number, **shown))
        names.append(path.stem)
    text = GALLERY.format(cards="\n\n".join(cards), names="\n".join(names))
    (pages / "index.md").write_text(text, encoding="utf-8")


def make(folder: Path) -> None:
    """Make all that is made.

    :param Path folder: where the pages are, docs/.
    """
    make_tutorials(folder)
    benchmark_tables.make(folder / "made")


if __name__ == "__main__":
    make(Path(__file__).parent)
