"""docs/methods.md: its method is found, described, runs, and averages as it says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from fedmepd import methods
from fedmepd.federation.in_process import run_in_process
from tests.federation.drive import make, play, server_state
from tests.federation.slow import Party
from tests.tiny import SITES, settings

PAGE = Path(__file__).parents[2] / "docs/methods.md"
FILE, _RUN, _FROZEN = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def fedmean(tmp_path, monkeypatch):
    (tmp_path / "added").mkdir()
    (tmp_path / "added/fedmean.py").write_text(FILE)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "added")])
    yield
    sys.modules.pop("fedmepd.methods.fedmean", None)


def test_it_is_found(fedmean) -> None:
    assert "fedmean" in methods.names() and methods.find("fedmean").title == "FedMean"


def test_every_participant_has_one_vote(fedmean, tiny, tmp_path) -> None:
    of = settings("fedmean", rounds=1)
    parties = {name: Party(of, tiny.data(name, of)) for name in ("fusion", *SITES)}
    start = parties["fusion"].state()
    for party in parties.values():
        party.train(1)
    play(*make(tiny, of, tmp_path), 1)
    found = server_state(tmp_path)["state"]
    for key in start:
        states = [party.state()[key] for party in parties.values() if key in party.state()]
        torch.testing.assert_close(found[key], sum(states) / len(states), rtol=0, atol=1e-6)


def test_it_runs_to_the_results(fedmean, tiny, tmp_path) -> None:
    """The second example of the page, with small cases in place of phantoms."""
    results = run_in_process(settings("fedmean", rounds=1), tiny.machine, tmp_path, list(SITES))
    assert (results["method"], results["status"]) == ("fedmean", "finished")
