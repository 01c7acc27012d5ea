"""What ``--help`` tells of each command, with examples."""

from __future__ import annotations

__all__ = ["EXITS", "FIT", "FORECAST", "PASSAGE", "PASSED", "PROGRAM", "SCORE", "TOPICS"]

PROGRAM = """\
State space LSTMs from the command line: topics of texts, and paths behind series of numbers.

  pyro-ssl fit book.txt --out runs/book      learn topics; open runs/book/index.html meanwhile
  pyro-ssl topics runs/book                  print them
  pyro-ssl score runs/book other.txt         how well other text is predicted
  pyro-ssl forecast runs/book other.txt      which topics and words come next
"""

EXITS = """\
Results go to the standard output, all else to the standard error. Exit codes: 0 done, 1 failed,
2 the command line is wrong, 130 stopped by Ctrl-C with what was reached saved (143 by SIGTERM).
pyro-ssl COMMAND --help has the options of a command, and examples.
"""

FIT = """\
Learn topics from texts (TopicalSSL), or a path behind series of numbers (GaussianSSL).

Files are UTF-8 and may be packed (.gz, .xz). A .txt is one document, a .jsonl has one on each
line, a .csv in each row. Plain text is cut into passages of 100 words (--passage). With --kind
series a .csv is one series: rows are steps, and all columns of numbers are taken (--column), with
empty cells where a number is missing.

FOLDER then has the model, the vocabulary, the settings, a log, and index.html, a page with the
curves of the run, written anew as it goes. A run that was stopped, or killed, goes on with the same
line and --resume, and comes to the same model as if it had not been.

  pyro-ssl fit book.txt --out runs/book --topics 20
  pyro-ssl fit chapters/*.txt --out runs/chapters --passage 0         one document per file
  pyro-ssl fit reviews.jsonl --field text --out runs/reviews
  pyro-ssl fit mails.csv --column body --out runs/mails --keep-case
  pyro-ssl fit house.csv --kind series --column indoor --column outdoor --out runs/house
  zcat wiki.gz | pyro-ssl fit - --out runs/wiki
  torchrun --nproc-per-node 2 -m pyro_ssl fit book.txt --out runs/book
"""

TOPICS = """\
Print the topics of a run, by falling share of the words, with their likeliest words.

  pyro-ssl topics runs/book --words 5 --relevance 0.6
  pyro-ssl topics runs/book --json | head -1
  pyro-ssl topics runs/book --page topics.html    a map, and words by relevance, without stop words
"""

SCORE = """\
Print how well files are predicted, each word (or step) from all before it: of texts the perplexity
of each passage, and of all; of series the log-likelihood of a step.

Files are read as fit read its own: what is a passage there is one here.

  pyro-ssl score runs/book other.txt
  pyro-ssl score runs/reviews new.jsonl --json
  pyro-ssl score runs/house march.csv
"""

FORECAST = """\
Print what comes after the end of each document: at each of the next steps the likeliest topics and
words, with their probabilities. Of series: the mean of each column, and the ends of the interval
that holds it with probability --level, the noise included.

A document that is longer than the passages of the fit is continued from its last so many words.

  pyro-ssl forecast runs/book other.txt --horizon 3
  pyro-ssl forecast runs/house march.csv --horizon 24 --level 0.8 --json
"""

PASSAGE = """cut documents into passages of so many words, 0: leave them whole (100 for plain text,
0 for JSON lines and CSV)"""

PASSED = {
    "bench": "what a sweep costs on this machine (python -m pyro_ssl.bench)",
    "demo": "topics of Python's language reference (python -m pyro_ssl.demo)",
}
