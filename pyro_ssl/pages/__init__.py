"""Web pages of what was fitted: one file each, with nothing from outside.

``document.py`` is the frame that all pages share, and their style; ``charts.py`` draws curves as
SVG, ``bars.py`` bars; ``topics.py`` tells topics of content words from glue; ``pieces.py`` has
figures, tables, and what else is small; ``topic_page.py`` is a page to look into topics.
"""

from .bars import grouped_bars
from .charts import forecast_chart, line_chart
from .document import document
from .pieces import chip, figures, shown_word, signed, table
from .topic_page import topic_page, write_topic_page
from .topics import LISTED, ReadableTopics, readable_topics, topic_section

__all__ = [
    "LISTED",
    "ReadableTopics",
    "chip",
    "document",
    "figures",
    "forecast_chart",
    "grouped_bars",
    "line_chart",
    "readable_topics",
    "shown_word",
    "signed",
    "table",
    "topic_page",
    "topic_section",
    "write_topic_page",
]
