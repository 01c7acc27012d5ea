"""What :func:`~pyro_ssl.verify` found, as a table to read."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Check", "Report", "Verdict"]

Verdict = Literal["passed", "warning", "failed", "skipped"]

#: width of the table
WIDTH = 100


class Check(NamedTuple):
    """One check: its ``name``, ``verdict``, what was ``found``, and the line to ``write`` instead.

    A ``warning`` is of what may be meant; what is ``skipped`` was not verified.
    """

    name: str
    verdict: Verdict
    found: str
    write: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of a model, in the order in which they were made.

    Example::

        >>> report = Report((Check("evidence", "passed", "at most 1.2 standard errors off"),))
        >>> report.passed, report["evidence"].verdict
        (True, 'passed')
        >>> print(report)
        verify: 1 passed, 0 warnings, 0 failed, 0 not verified
        passed   evidence             at most 1.2 standard errors off
    """

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed; warnings and what was not verified do not count."""
        return not self.of("failed")

    def of(self, verdict: Verdict) -> tuple[Check, ...]:
        """Return the checks of one verdict."""
        return tuple(check for check in self.checks if check.verdict == verdict)

    def __getitem__(self, name: str) -> Check:
        """Return the check of a name.

        :raises KeyError: if there is none.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f'"{name}": no such check, expected one of {[c.name for c in self.checks]}.')

    def __str__(self) -> str:
        lines = [
            f"verify: {len(self.of('passed'))} passed, {len(self.of('warning'))} warnings, "
            f"{len(self.of('failed'))} failed, {len(self.of('skipped'))} not verified"
        ]
        for check in self.checks:
            verdict = check.verdict.upper() if check.verdict == "failed" else check.verdict
            lines += _laid_out(f"{verdict:<9}{check.name:<21}", check.found)
            if check.write:
                lines += _laid_out(f"{'':<9}{'   write':<21}", check.write)
        return "\n".join(lines)


def _laid_out(head: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(" ".join(text.split()), WIDTH - len(head), break_long_words=False)
    return [f"{head if not i else ' ' * len(head)}{line}" for i, line in enumerate(wrapped)]
