"""Is an IMV-LSTM a good forecaster, and does it find the variables that matter?

    python -m benchmarks.imv run --data pm25 --path FOLDER [--methods ...] [--seeds 3]
    python -m benchmarks.imv run --data sml2010 --path FOLDER
    python -m benchmarks.imv run --data planted --seeds 10
    python -m benchmarks.imv report

Each method learns from the same training windows, chooses by the same validation windows, and is
scored on the same test windows, in the data's own unit. Runs that are done are not repeated: those
of a method have a file in ``results/imv``, with the settings that they were made with. ``--set
units=32`` changes one, and needs ``--results`` with another folder. ``report`` writes ``tables.md``
and pictures beside them.

``pm25``: next hour's PM2.5. ``sml2010``: the dining room's temperature in 15 minutes.
``sml2010-weather``: the target of the published figures, see ``load_sml2010``. ``planted``: 10
variables of which 2 matter, each at one lag, and y is their sum; ``planted-shares``: y follows one
of the 2 at a time, with shares that I should equal. In these two the seed also draws the data.
"""
