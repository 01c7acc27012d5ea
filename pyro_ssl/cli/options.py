"""The arguments of the commands, with what ``--help`` tells."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import helps

__all__ = ["DEFAULTS", "parser_of", "resolved"]

#: what holds where nothing is said, for the options that one kind of data has, or has otherwise
DEFAULTS: dict[str, dict[str, Any]] = {
    "text": {
        "topics": 20,
        "vocabulary": 2000,
        "hidden": 64,
        "epochs": 50,
        "markov_steps": 150,
        "batch_size": None,
        "passage": None,
        "format": None,
        "field": "text",
        "keep_case": False,
        "words": 10,
    },
    "series": {"hidden": 32, "epochs": 60, "dim": None, "paths": 8},
}

Runs = dict[str, Callable[..., int]]


def parser_of(runs: Runs) -> argparse.ArgumentParser:
    """Return the parser.

    :param runs: what runs each command, by its name.
    """
    parser = argparse.ArgumentParser(
        "pyro-ssl",
        description=helps.PROGRAM,
        epilog=helps.EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add, line, text) in _COMMANDS.items():
        one = commands.add_parser(
            name,
            help=line,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        one.set_defaults(run=runs[name], parser=one)
        add(one)
        one.add_argument("--traceback", action="store_true", help="of an error, show where it was")
    for name, line in helps.PASSED.items():  # for --help alone: they parse for themselves
        commands.add_parser(name, help=line, add_help=False)
    return parser


def resolved(options: argparse.Namespace) -> argparse.Namespace:
    """Fill in the defaults of a fit's kind; options of the other kind are refused.

    It ends the program, as argparse does, if one is given.
    """
    own = DEFAULTS[options.kind]
    for kind, others in DEFAULTS.items():
        for name in others.keys() - own.keys():
            if getattr(options, name) is not None:
                flag = "--" + name.replace("_", "-")
                options.parser.error(
                    f"{flag} is of --kind {kind}, found --kind {options.kind}; leave one out"
                )
    if options.kind == "text" and options.column is not None and len(options.column) > 1:
        options.parser.error("--column names one column of text, found several; give one")
    filled = {n: own.get(n) for n in {**DEFAULTS["text"], **DEFAULTS["series"]}}
    given = {n: v for n, v in vars(options).items() if v is not None}
    return argparse.Namespace(**{**vars(options), **filled, **given})


# ------------------------------------------------------------------------------ commands


def _fit(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="- is the standard input")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where the run lives")
    add("--kind", choices=sorted(DEFAULTS), default="text", help="text, or series of numbers")
    add("--resume", action="store_true", help="go on with the run in FOLDER, if one is there")
    add("--overwrite", action="store_true", help="throw the run in FOLDER away, and begin anew")
    _reading(parser.add_argument_group("how files are read"))
    text = parser.add_argument_group("texts")
    add = text.add_argument
    add("--topics", type=_whole(1), metavar="K", help="how many topics (20)")
    add("--vocabulary", type=_whole(2), metavar="V", help="the most frequent words (2000)")
    add("--keep-case", action="store_true", default=None, help="The and the are two words")
    add("--batch-size", type=_whole(1), metavar="N", help="passages in a step (all, or 1000)")
    add("--markov-steps", type=_whole(0), metavar="N", help="of the HMM at the start (150)")
    add("--words", type=_whole(1), metavar="N", help="words to print of each topic (10)")
    series = parser.add_argument_group("series of numbers")
    add = series.add_argument
    add("--dim", type=_whole(1), metavar="D", help="dimensions of the path (one for each column)")
    add("--paths", type=_whole(1), metavar="N", help="paths drawn of each series in an epoch (8)")
    learning = parser.add_argument_group("learning")
    add = learning.add_argument
    add("--hidden", type=_whole(1), metavar="H", help="units of the LSTM (64; of series 32)")
    add("--epochs", type=_whole(1), metavar="N", help="at most so many (50; of series 60)")
    add("--patience", type=_whole(1), metavar="N", help="stop after so many without a better score")
    add("--particles", type=_whole(1), default=10, metavar="P", help="of each sweep (10)")
    add("--learning-rate", type=_positive, default=0.01, metavar="X", help="of the LSTM (0.01)")
    add("--valid", type=_share, default=0.1, metavar="SHARE", help="held out, to choose by (0.1)")
    add("--seed", type=_whole(0), default=0, metavar="N", help="of all random numbers (0)")
    _device(learning)


def _topics(parser: argparse.ArgumentParser) -> None:
    _folder(parser)
    parser.add_argument("--words", type=_whole(1), default=10, metavar="N", help="of each (10)")
    parser.add_argument(
        "--relevance",
        type=_relevance,
        default=1.0,
        metavar="X",
        help="words by p(word | topic), 1, down to what tells a topic from the others, 0 (1)",
    )
    _json(parser)
    page = "write a page to look into them as well: a map, and words by relevance"
    parser.add_argument("--page", type=Path, metavar="FILE", help=page)


def _score(parser: argparse.ArgumentParser) -> None:
    _folder(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help="- is the standard input")
    _reading(parser.add_argument_group("how files are read, if otherwise than by fit"))
    parser.add_argument("--particles", type=_whole(1), metavar="P", help="(100; of series 1000)")
    parser.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="(0)")
    _device(parser)
    _json(parser)


def _forecast(parser: argparse.ArgumentParser) -> None:
    _score(parser)
    add = parser.add_argument
    add("--horizon", type=_whole(1), default=5, metavar="N", help="steps to look ahead (5)")
    add("--top", type=_whole(1), default=3, metavar="N", help="topics and words to show (3)")
    add("--level", type=_inside, default=0.9, metavar="SHARE", help="of intervals (0.9)")


_COMMANDS = {
    "fit": (_fit, "learn from files", helps.FIT),
    "topics": (_topics, "print the topics of a run", helps.TOPICS),
    "score": (_score, "how well a run's model predicts files", helps.SCORE),
    "forecast": (_forecast, "what comes after the end of files", helps.FORECAST),
}


# ------------------------------------------------------------------------------ shared


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the --out of pyro-ssl fit")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON lines in place of a table")


def _device(parser: Any) -> None:
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (cuda where there is one)")


def _reading(group: Any) -> None:
    add = group.add_argument
    add("--format", choices=["txt", "jsonl", "csv"], help="of all files (by their endings)")
    add("--field", metavar="NAME", help="of JSON lines, which holds the text (text)")
    add("--column", action="append", metavar="NAME", help="of CSV (text; of series all)")
    add("--delimiter", type=_letter, metavar="C", help="between the cells of CSV (a comma)")
    add("--passage", type=_whole(0), metavar="N", help=helps.PASSAGE)


def _whole(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(
                f"found {text}, expected a whole number from {least} on"
            )
        return value

    return number


def _real(text: str, good: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not good(value):
        raise argparse.ArgumentTypeError(f"found {text}, expected {expected}")
    return value


def _positive(text: str) -> float:
    return _real(text, lambda x: 0 < x < float("inf"), "a positive number")


def _share(text: str) -> float:
    return _real(text, lambda x: 0 <= x < 1, "a share from 0 to below 1, such as 0.1")


def _relevance(text: str) -> float:
    return _real(text, lambda x: 0 <= x <= 1, "a number from 0 to 1")


def _inside(text: str) -> float:
    return _real(text, lambda x: 0 < x < 1, "a share between 0 and 1, such as 0.9")


def _letter(text: str) -> str:
    text = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(text) != 1 or text in '\r\n"':
        raise argparse.ArgumentTypeError(f"found {text!r}, expected one character, or tab")
    return text
