"""A plan by both engines: a process for a run, and FLARE's simulator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmepd.experiments.conduct import Conductor
from fedmepd.experiments.plan import read_plan
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import load_tensors
from tests.federation.drive import same
from tests.system.simulator import TINY

pytestmark = [pytest.mark.system, pytest.mark.slow]

DECIDED = ("method", "training")


def carry_out(folder: Path, data: Path, engine: str) -> Path:
    plan = {
        "preset": "paper",
        "engine": engine,
        "data": str(data),
        # With float16 on the wire, as jobs have it.
        "settings": {key: value for key, value in TINY.items() if key not in DECIDED}
        | {"training": {"crop": 16, "precision": "float32"}, "aggregation": {"wire_precision": "float16"}},
        "methods": ["fedmepd"],
        "seeds": [0],
    }
    (folder / "plan.yaml").write_text(json.dumps(plan))
    outcome = Conductor(read_plan(folder / "plan.yaml", None), folder / engine, SiteSettings.load()).carry_out()
    assert not outcome.failed
    [run] = outcome.runs
    return run.path


def test_the_simulator_gives_the_bits_of_one_process(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FEDMEPD_DEVICE", "cpu")
    runs = [carry_out(tmp_path, tiny.machine.data, engine) for engine in ("in_process", "simulator")]
    for owner in ("site-1", "site-2", "fusion"):
        kept = [load_tensors(next(run.rglob(f"**/{owner}/**/state_00002.pt"))) for run in runs]
        for key in ("network", "optimizer", "method"):
            assert same(kept[0][key], kept[1][key]), f"{owner}: {key}"
    plain, simulated = (json.loads((run / "results.json").read_text()) for run in runs)
    for one, other in zip([plain["server"], *plain["sites"]], [simulated["server"], *simulated["sites"]], strict=True):
        for key in ("test", "test_cases", "test_fingerprint", "validation"):
            assert one[key] == other[key] and one[key] is not None, key
        for key in ("steps", "passes", "bytes_up", "bytes_down"):
            assert one["work"][key] == other["work"][key], key
        assert other["work"]["peak_mib"] > 100
    assert plain["settings"] == simulated["settings"]
