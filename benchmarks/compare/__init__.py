"""How much better is joint than factorised inference, and what does an SSL cost?

    python -m benchmarks.compare run --corpus wikitext2 --path PATH [--seeds 0 1 2] [--methods ...]
    python -m benchmarks.compare run --corpus wikitext2 --path PATH --states 200 --priors 0.03
    python -m benchmarks.compare run --corpus python --set weight_decay=0.3 dropout=0.7
    python -m benchmarks.compare merge [--shared] FOLDER ...     runs that --results put elsewhere
    python -m benchmarks.compare rates FOLDER ...     seconds of an epoch, of runs with --epochs 2
    python -m benchmarks.compare report

Every method learns from the same sequences, chooses its epoch by the same validation sequences,
and is scored on the same test steps. ``run`` stores each (method, seed) in
``benchmarks/results/learning/CORPUS.json`` when it is done, and does not repeat it; ``report``
makes the tables and the picture from these files alone.

Runs on a machine that had other work give perplexities by epoch, but no seconds (``--shared``):
these come from short runs that had it alone.

``corpora.py`` has the data, ``methods.py`` what is compared, ``store.py`` keeps the results,
``report.py`` shows them.
"""
