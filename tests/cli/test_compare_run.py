from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from fedmepd.cli.program import main
from fedmepd.experiments.plan import read_plan, runs_of
from fedmepd.experiments.run_folder import RunFolder


def test_the_list_of_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One run is finished, one in its first round, one was never begun; then the plan asks for more rounds."""
    plan, out = tmp_path / "plan.yaml", tmp_path / "out"

    def write(rounds: int) -> None:
        content = {"methods": ["local"], "seeds": [0, 1, 2], "settings": {"rounds": rounds, "training": {"batch": 3}}}
        plan.write_text(yaml.safe_dump(content))

    def listed() -> list[list[str]]:
        assert main(["compare", "run", str(plan), str(out), "--list"]) == 0
        return [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[1:]]

    write(2)
    known = read_plan(plan, None)
    for run in runs_of(known, next(known.choices()), known.seeds):
        RunFolder(out / run.name).begin(run)
    (out / "local-seed-0" / "results.json").write_text(json.dumps({"status": "finished", "round": 2, "rounds": 2}))
    (out / "local-seed-1" / "state").mkdir()
    assert listed() == [
        ["local-seed-0", "2/2", "finished"],
        ["local-seed-1", "0/2", "begun"],
        ["local-seed-2", "0/2", "not begun"],
    ]
    write(5)
    assert listed()[1] == ["local-seed-1", "0/5", "begun; the plan has changed: rounds was 2, now 5"]
