"""The benchmark of a comparison, with a stand-in in place of training, and a clock that it moves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import compare
from fedmepd.experiments.plan import Plan, runs_of
from fedmepd.experiments.run_folder import RunFolder
from fedmepd.storage import save_tensors
from tests.federation.drive import Clock

WORK = {"steps": 1, "bytes_up": 0, "bytes_down": 0, "peak_mib": 1.0, "networks": 1}


class StandIn:
    """Takes 0.4 s for all runs, divided by the number at a time; leaves weights, which may depend on that number."""

    def __init__(self, differs: bool = False):
        self._differs = differs
        self.calls: list[tuple[int, int]] = []
        self.clock = Clock()

    def __call__(self, plan: Plan, out: Path, at_once: int) -> list[RunFolder]:
        self.calls.append((at_once, plan.settings["rounds"]))
        self.clock.wait(0.4 / at_once)
        folders = []
        for run in [run for choice in plan.choices() for run in runs_of(plan, choice, plan.seeds)]:
            folder = RunFolder(out / run.name)
            weight = torch.tensor([float(at_once) if self._differs else 0.5])
            save_tensors(folder.path / "state" / "site-1" / "state_1.pt", {"network": {"a": weight}, "round": at_once})
            results = {"run_name": run.name, "seed": run.settings.seed, "seconds": 1.0, "server": {"work": WORK}}
            (folder.path / "results.json").write_text(json.dumps(results | {"sites": [{"work": WORK}]}))
            folders.append(folder)
        return folders


@pytest.mark.parametrize("differs", [False, True])
def test_report(differs: bool, tmp_path, capsys) -> None:
    stand_in = StandIn(differs)
    status = compare.main(
        ["--pairs", "2", "--rounds", "7", "--json", str(tmp_path / "compare.json")], stand_in, stand_in.clock
    )
    report = json.loads((tmp_path / "compare.json").read_text())
    cores = report["rows"][1]["at_once"]
    # Once to prepare the cases, then each way twice, by turns.
    assert stand_in.calls == [(cores, 1), (1, 7), (cores, 7), (cores, 7), (1, 7)]
    assert report["ratio"]["median"] == pytest.approx(cores) and report["runs"] == 4
    assert (report["same_bits"], status) == (not differs, int(differs)) or cores == 1
    assert len(report["busy_cores"]) == 4
    output = capsys.readouterr().out
    assert ("weights: different" in output) == (differs and cores > 1) and "| side by side" in output
