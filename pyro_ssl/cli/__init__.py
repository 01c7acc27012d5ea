"""The command line: ``pyro-ssl fit | topics | score | forecast | bench | demo``.

``program.py`` is what is run: it finds the command, and turns errors and signals into messages and
exit codes. ``options.py`` has the arguments. ``texts.py`` and ``series.py`` read files, ``fit.py``
learns from them, ``folder.py`` is where a run lives, ``progress.py`` shows it as it goes, and
``answers.py`` asks what was learned.
"""

from .program import main

__all__ = ["main"]
