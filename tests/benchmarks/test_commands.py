"""Each benchmark as a user runs it, with tiny sizes."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPREAD = {"median", "lowest", "highest"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch, capsys):
    """Runs ``python -m benchmarks.NAME``; returns its report and what it printed.

    In this process, where all that it imports is at hand, or, for those that start processes, in one of its own.
    """

    def command(name: str, *options: str, starts_processes: bool = False) -> tuple[dict, str]:
        report = tmp_path / f"{name}.json"
        given = ["--quick", "--threads", "1", "--subset", "T1ce", *options, "--json", str(report)]
        if starts_processes:
            done = subprocess.run(
                [sys.executable, "-m", f"benchmarks.{name}", *given],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            output = done.stdout
        else:
            monkeypatch.setattr(sys, "argv", [name, *given])
            # As a module of its own, which nobody has imported before.
            monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
            with pytest.raises(SystemExit) as end:
                runpy.run_module(f"benchmarks.{name}", run_name="__main__")
            output = capsys.readouterr().out
            assert end.value.code == 0, output
        content = json.loads(report.read_text())
        assert content["benchmark"] == name and content["environment"]["threads"] == 1
        return content, output

    return command


def test_side_by_side(tmp_path, capsys) -> None:
    from benchmarks import side_by_side

    report = tmp_path / "side_by_side.json"
    assert side_by_side.main(["--quick", "--pairs", "2", "--threads", "2", "--json", str(report)]) == 0
    [row] = json.loads(report.read_text())["rows"]
    assert row["threads"] == 2 and all(row[key].keys() == SPREAD for key in row if key != "threads")
    assert 0 < row["ratio"]["lowest"] <= row["ratio"]["median"]
    assert "on one thread, s" in capsys.readouterr().out


def test_step(run) -> None:
    content, output = run("step", "--pairs", "2", "--precision", "bfloat16")
    [row] = content["rows"]
    assert row["modalities"] == ["T1ce"]
    on_phantoms = {"float64", "straightforward float32", "float32", "bfloat16"}
    assert row["agreement"].keys() == on_phantoms
    assert all(row[key].keys() == SPREAD for key in ("straightforward_seconds", "product_seconds", "ratio"))
    assert content["mean_ratio"] == content["lowest_single_modality_ratio"] == row["ratio"]["median"] > 0
    forward = row["forward_gflop"]
    assert forward["auxiliary decoder"] > forward["encoders"] > forward["calibration"] > 0
    # Nothing is forgotten, and a gradient takes at most twice the forward pass and what is computed again.
    assert 2 * sum(forward.values()) < row["gflop"] < 3.5 * sum(forward.values())
    assert row["share"] * row["matrix_rate"] == pytest.approx(row["gflop"] / row["product_seconds"]["median"])
    assert (content["width"], content["crop"], content["pairs"], content["arithmetic"]) == (4, 24, 2, "bfloat16")
    assert f" {row['gflop']:.1f} |" in output and "| calibration |" in output
    assert "| T1ce " in output


def test_memory(run) -> None:
    content, output = run("memory", "--pairs", "1", starts_processes=True)
    [row] = content["rows"]
    for side in ("straightforward", "product"):
        peak, above = row[f"{side}_mib"], row[f"{side}_above_mib"]
        assert peak.keys() == above.keys() == SPREAD
        assert 0 < above["median"] < peak["median"]
    assert row["ratio"]["median"] == row["straightforward_mib"]["median"] / row["product_mib"]["median"]
    assert row["ratio_above"].keys() == SPREAD and content["mean_ratio"] == row["ratio"]["median"]
    assert "| T1ce " in output


def test_training(run) -> None:
    content, output = run("training", "--seeds", "2")
    sides = {"straightforward", "float32", "bfloat16"}
    [row] = content["rows"]
    assert row.keys() == {"first_step", *sides}
    assert content["last"].keys() == content["seconds"].keys() == sides
    assert content["difference"].keys() == sides - {"straightforward"} and content["deviation"] > 0
    # Three steps from the same weights.
    assert abs(content["difference"]["float32"]["mean"]) < 0.01 < row["straightforward"]
    assert "from 1" in output


@pytest.mark.system
@pytest.mark.slow
def test_inference(run, tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    content, output = run("inference", "--model", str(model), starts_processes=True)
    [row] = content["rows"]
    sides = {"straightforward", "product", "cropped"}
    for key in ("seconds", "mib", "above_mib"):
        assert row[key].keys() == sides and all(spread.keys() == SPREAD for spread in row[key].values())
    for key in ("dice", "dice_everywhere", "dice_cropped", "dice_with_label"):
        assert row[key].keys() == {"WT", "TC", "ET", "NCR/NET", "ED"}
        assert all(0 <= value <= 1 for value in row[key].values())
    assert content["mean_ratio"] == row["ratio"]["median"] > 0 and "ratio_cropped" in row
    assert content["lowest_dice"] == min(row["dice"][region] for region in ("WT", "TC", "ET"))
    assert model.is_file() and "| T1ce " in output
