from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from fedmepd.cli import main
from tests.data.files import save, tumour, write_case
from tests.evaluation.shapes import sphere
from tests.segmentation.models import save_tiny


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FEDMEPD_DEVICE", "cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture):
    """Runs ``fedmepd evaluate``; returns exit status, standard output and standard error."""

    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["evaluate", *map(str, arguments)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


def file_values(classes: np.ndarray) -> np.ndarray:
    return np.where(classes == 3, 4, classes).astype("uint8")


def test_files(tmp_path: Path, run) -> None:
    """Spheres shifted by whole voxels of 1 x 2 x 3 mm; one case without enhancing tumour."""
    affine = np.diag([-1.0, -2, 3, 1])
    centres = {"a": (9, 9, 9), "b": (9, 11, 9), "c": (9, 9, 9)}
    for name, centre in centres.items():
        label = sphere((9, 9, 9))
        if name == "c":
            label[label == 3] = 1
        save(tmp_path / "labels" / name / f"{name}_seg.nii.gz", file_values(label), affine)
        save(tmp_path / "predictions" / f"{name}.nii.gz", file_values(sphere(centre)), affine)
    save(tmp_path / "predictions" / "x.nii.gz", file_values(sphere((9, 9, 9))), affine)
    save(tmp_path / "labels" / "y" / "y_seg.nii.gz", file_values(sphere((9, 9, 9))), affine)
    arguments = ("--predictions", tmp_path / "predictions", "--labels", tmp_path / "labels", "--out", tmp_path / "out")
    status, printed, warned = run(*arguments)
    assert status == 0 and printed.startswith("scored 3 cases\n")
    assert warned.splitlines() == [
        "warning: predictions without a label, left out (1): x",
        "warning: labels without a prediction, left out (1): y",
    ]
    assert "ET: 0 in both, 1 in the label alone, 0 in the prediction alone" in printed
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (report["without_label"], report["without_prediction"]) == (["x"], ["y"])
    with open(tmp_path / "out" / "evaluation.csv", newline="") as opened:
        rows = {(row["case"], row["region"]): row for row in csv.DictReader(opened)}
    assert len(rows) == 9 and rows["a", "WT"]["dice"] == "1" and rows["c", "ET"]["hd95_mm"] == "373.13"
    one, other = sphere((9, 9, 9)) > 0, sphere((9, 11, 9)) > 0
    dice = 2 * (one & other).sum() / (one.sum() + other.sum())
    assert float(rows["b", "WT"]["dice"]) == pytest.approx(dice, rel=1e-5)
    assert float(rows["b", "WT"]["label_ml"]) == pytest.approx(one.sum() * 0.006)
    assert float(rows["b", "ET"]["hd95_mm"]) == pytest.approx(4)
    assert (
        any(line.split()[:2] == ["WT", "Dice"] for line in printed.splitlines()) and f"{(2 + dice) / 3:.3f}" in printed
    )


@pytest.mark.parametrize("name", ["evaluation.csv", "evaluation.json"])
def test_an_evaluation_that_is_there_is_kept(tmp_path: Path, run, name: str) -> None:
    for folder in ("p", "l"):
        save(tmp_path / folder / "a.nii.gz", tumour())
    (tmp_path / name).write_text("of another model")
    status, printed, error = run("--predictions", tmp_path / "p", "--labels", tmp_path / "l", "--out", tmp_path)
    assert (status, printed) == (2, "") and f"has an {name} already: choose another folder" in error
    assert (tmp_path / name).read_text() == "of another model"


def test_only_the_table(tmp_path: Path, run) -> None:
    for folder in ("p", "l"):
        save(tmp_path / folder / "a.nii.gz", tumour())
    status, printed, _ = run("--predictions", tmp_path / "p" / "a.nii.gz", "--labels", tmp_path / "l" / "a.nii.gz")
    assert status == 0 and "scored 1 case\n" in printed and "wrote" not in printed


def test_refused(tmp_path: Path, run) -> None:
    model, data = tmp_path / "model.pt", tmp_path / "data"
    save_tiny(model)
    write_case(data, "a")
    p, grid = save(tmp_path / "p" / "a.nii.gz", tumour()).parent, save(tmp_path / "g" / "a.nii.gz", tumour((8, 9, 11)))
    new = save(tmp_path / "n" / "a.nii.gz", np.where(tumour() == 4, 3, tumour())).parent
    write_case(tmp_path / "unlabelled", "u", label=None)
    for message, arguments in {
        "expected either --predictions and --labels, or --model": (),
        "expected either --pred": ("--predictions", p),
        "expected either": ("--predictions", p, "--labels", data, "--model", model, data),
        "or --model and a data set": ("--model", model),
        "either --predictions": ("--predictions", p, "--labels", data, data),
        "and --labels, or": ("--predictions", p, "--labels", data, "--model", model),
        "--part: expected with --model": ("--predictions", p, "--labels", data, "--part", "test"),
        "--flips: expected with --model": ("--predictions", p, "--labels", data, "--flips"),
        "--overlap: expected with": ("--predictions", p, "--labels", data, "--overlap", "0"),
        "--min-enhancing: expected": ("--predictions", p, "--labels", data, "--min-enhancing", "0.5"),
        "--prediction-values: expected with": ("--model", model, data, "--prediction-values", "msd"),
        "--seed -1": ("--predictions", p, "--labels", data, "--seed", "-1"),
        "has shape .8, 9, 11.*a segmentation has to be in the grid": ("--predictions", grid.parent, "--labels", data),
        "say --prediction-values brats2023": ("--predictions", new, "--labels", data),
        "gone does not exist": ("--predictions", tmp_path / "gone", "--labels", data),
        "no labelled case to score": ("--model", model, tmp_path / "unlabelled"),
        "has no manifest": ("--model", model, data, "--part", "test"),
        "gone.pt does not exist": ("--model", tmp_path / "gone.pt", data),
    }.items():
        status, printed, error = run(*arguments, "--out", tmp_path / "out")
        assert status == 2 and printed == "" and re.search(message, error), (message, error)
    assert not (tmp_path / "out").exists()


def test_a_model_scores_what_its_predictions_do(tmp_path: Path, run) -> None:
    model, data = tmp_path / "model.pt", tmp_path / "site"
    save_tiny(model)
    for number in range(4):
        write_case(data, f"case-{number}", modalities=("FLAIR", "T1ce"))
    status, printed, warned = run("--model", model, data, "--out", tmp_path / "all")
    assert status == 0 and "scored 4 cases" in printed and "has no manifest: if the model was trained" in warned
    assert main(["predict", "--model", str(model), str(data), "--out", str(tmp_path / "predicted")]) == 0
    run(
        "--predictions",
        tmp_path / "predicted",
        "--labels",
        data,
        "--prediction-values",
        "brats",
        "--out",
        tmp_path / "p",
    )
    both = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("all", "p")]
    assert both[0] == both[1]
    # With a manifest, the cases that it keeps for the test.
    assert main(["data", "init", str(data), "--train", "0.5", "--validation", "0.25"]) == 0
    status, printed, warned = run("--model", model, data)
    assert status == 0 and "scored 1 case\n" in printed and warned == ""
    assert "scored 2 cases" in run("--model", model, data, "--part", "train")[1]
    assert "scored 4 cases" in run("--model", model, data, "--part", "all")[1]


def test_what_a_model_is_not_for_is_said_first(tmp_path: Path, run) -> None:
    """On phantoms trained, and with other voxels; each once, however many cases there are beyond twenty."""
    for number in range(3):
        write_case(tmp_path / "data", f"case{number}", ("FLAIR", "T1ce"))
    save_tiny(tmp_path / "model.pt", phantoms=True, voxel_mm=(2.0, 2.0, 2.0))
    status, _, warned = run("--model", tmp_path / "model.pt", tmp_path / "data")
    assert status == 0
    lines = [line for line in warned.splitlines() if "trained" in line and "flatter" not in line]
    assert lines[0].endswith("what it marks in case0 and 2 more means nothing")
    assert [line.split(" has voxels")[0] for line in lines[1:]] == [
        f"warning: case case{number}" for number in range(3)
    ]
