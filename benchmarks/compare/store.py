"""Results on disk: one JSON file per corpus, one entry per method and seed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "Store"]

RESULTS = Path(__file__).parent.parent / "results" / "learning"


class Store:
    """The runs on one corpus. Every change is on disk before the next run begins."""

    def __init__(self, corpus: str, folder: Path = RESULTS) -> None:
        self.path = folder / f"{corpus}.json"
        self.content: dict[str, Any] = {"corpus": corpus, "settings": {}, "runs": {}}
        if self.path.exists():
            self.content = json.loads(self.path.read_text(encoding="utf-8"))

    def runs(self, method: str) -> dict[str, dict[str, Any]]:
        """Results of a method by seed."""
        return self.content["runs"].get(method, {})

    def has(self, method: str, seed: int) -> bool:
        """Whether this run is done."""
        return str(seed) in self.runs(method)

    def add(self, method: str, seed: int, result: dict[str, Any]) -> None:
        """Store a run."""
        self.content["runs"].setdefault(method, {})[str(seed)] = result
        self._write()

    def chosen(self, method: str) -> float | None:
        """The concentration that its first seed chose, or ``None`` before that."""
        first = self.runs(method).get("0")
        return None if first is None else first.get("concentration")

    def settings(self, **values: Any) -> None:
        """Store the settings of all runs."""
        self.content["settings"].update(values)
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.content, indent=1, sort_keys=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=self.path.parent, delete=False, encoding="utf-8", suffix=".part"
        ) as file:
            file.write(text + "\n")
        os.replace(file.name, self.path)
