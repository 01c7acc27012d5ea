"""The README's code runs, from top to bottom."""

import re
from pathlib import Path

import pytest
import torch


@pytest.mark.stage("statistical")
def test_code_blocks_run(monkeypatch, capsys):
    monkeypatch.setenv("CI", "true")  # no progress bars
    torch.set_default_dtype(torch.float32)
    text = (Path(__file__).parent.parent / "README.md").read_text()
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(block, "README.md", "exec"), namespace)
    perplexity = float(re.search(r"held-out perplexity ([\d.]+)", capsys.readouterr().out)[1])
    assert 100 < perplexity < 300  # a unigram's is 320
    assert len(namespace["ssl"].topics()) == 20
