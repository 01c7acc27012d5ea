"""Web pages of what was fitted: one file each, with nothing from outside.

``document.py`` is the frame that all pages share, and their style; ``charts.py`` draws curves as
SVG; ``pieces.py`` has figures, tables and topics.
"""

from .charts import forecast_chart, line_chart
from .document import document
from .pieces import figures, shown_word, table, topic_cards

__all__ = [
    "document",
    "figures",
    "forecast_chart",
    "line_chart",
    "shown_word",
    "table",
    "topic_cards",
]
