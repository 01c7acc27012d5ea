"""The program: commands by name, errors as messages, signals as ends, exit codes."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro

from ..bench import main as bench
from ..demo import main as demo
from .answers import forecast, score, topics
from .call import Call
from .fit import fit
from .options import parser_of, resolved

__all__ = ["main"]

_PASSED: dict[str, Callable[[Sequence[str]], Any]] = {"bench": bench, "demo": demo}
_RUNS: dict[str, Callable[..., int]] = {
    "fit": fit,
    "topics": topics,
    "score": score,
    "forecast": forecast,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``pyro-ssl``.

    :param argv: by default the arguments of the command line.
    :returns: the exit code: 0 done, 1 failed, 2 for a wrong command line, 130 after Ctrl-C.

    Example::

        >>> main(["topics", "nowhere", "--words", "0"])
        2
    """
    if argv is None and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # words that a terminal may not have
    arguments = [*(sys.argv[1:] if argv is None else argv)]
    call = Call(shlex.join(["pyro-ssl", *arguments]))
    with _stops(call), _warnings_told(call):
        try:
            code = _run(arguments, call)
            sys.stdout.flush()
            return code
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except KeyboardInterrupt:
            call.log.say(f"pyro-ssl {call.command}: stopped")
            return call.stopped_code
        except BrokenPipeError:  # who reads has enough, and what is left goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if call.traceback:
                traceback.print_exc()
            else:
                call.log.say(f"pyro-ssl {call.command}: {_told(error)}")
            return 1
        finally:
            call.log.close()


def _run(arguments: list[str], call: Call) -> int:
    if arguments[:1] and arguments[0] in _PASSED:
        call.command = arguments[0]
        _PASSED[arguments[0]](arguments[1:])
        return 0
    options = parser_of(_RUNS).parse_args(arguments)
    call.command, call.traceback = options.command, options.traceback
    if options.command == "fit":
        options = resolved(options)
    with pyro.get_param_store().scope():
        return options.run(options, call)


def _told(error: BaseException) -> str:
    """An error in one paragraph."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    if isinstance(error, KeyError | IndexError | AttributeError | TypeError) or not text:
        name = f"{type(error).__name__}{': ' * bool(text)}{text}"
        text = f"found {name}; add --traceback to see where"
    return " ".join(" ".join([text, *getattr(error, "__notes__", [])]).split())


@contextmanager
def _stops(call: Call) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end what runs by KeyboardInterrupt, and keep which it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        call.stopped = number
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _warnings_told(call: Call) -> Iterator[None]:
    """Tell a warning in a line."""

    def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        call.log.say(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
