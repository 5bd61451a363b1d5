"""A task of one data file, all the way: checked, trained on in a federation, segmented, scored, exported."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from fedmepd.cli import main
from fedmepd.data.site import open_site_data
from fedmepd.errors import DataError
from fedmepd.evaluation.tables import console_table
from fedmepd.exporting.network import BundledNetwork
from fedmepd.federation.in_process import run_in_process
from fedmepd.reporting import figures
from fedmepd.reporting.page import write_report
from fedmepd.reporting.site_page import write_site_report
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import load_tensors, save_tensors
from fedmepd.tasks.find import find_task
from fedmepd.training.checkpoints import load_model
from tests.tasks.post_treatment import SITES, label_of, write, write_case
from tests.tiny import settings

NAME = "brats_post_treatment"
TASK = ("--task", NAME)
REGIONS = ["ET", "TC", "WT", "RC"]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> SiteSettings:
    folder = tmp_path_factory.mktemp("post_treatment")
    return SiteSettings(data=write(folder / "data"), cache=folder / "cache", device="cpu")


@pytest.fixture(scope="module")
def run(machine: SiteSettings) -> Path:
    """The folder of a federation's run of two rounds."""
    folder = machine.cache.parent / "run"
    run_in_process(settings(task=NAME, rounds=2, evaluation={"pictures": True}), machine, folder, list(SITES))
    return folder


@pytest.fixture
def command(
    machine: SiteSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Iterator[callable]:
    """Runs ``fedmepd ...``; returns exit status, output and errors."""
    monkeypatch.setenv("FEDMEPD_CACHE", str(machine.cache))
    monkeypatch.setenv("FEDMEPD_DEVICE", "cpu")

    def given(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    yield given


def test_checked(command, machine: SiteSettings) -> None:
    status, printed, _ = command("data", "check", machine.data / "fusion", *TASK)
    assert status == 0 and "no error in 6 cases" in printed
    assert "found BraTS 2024 or later: 6 cases of 6 patients" in printed
    assert "BraTS from 2024 on: 0, 1 NETC, 2 SNFH, 3 ET, 4 RC" in printed and "FLAIR T1ce T1 T2" in printed
    labels = np.stack([label_of(20 + number)[0] for number in range(6)])
    voxels = np.bincount(labels.ravel(), minlength=5)
    rows = [line.split() for line in printed.splitlines()]
    for value, name in enumerate(("background", "NETC", "SNFH", "ET", "RC")):
        [row] = [row for row in rows if row[-1:] == [name] and len(row) == 4]
        assert row[:2] == ["6", str(voxels[value])], name


def test_as_another_task_its_labels_are_refused(command, machine: SiteSettings) -> None:
    status, printed, _ = command("data", "check", machine.data / "fusion", "--details")
    assert status == 1 and "task brats_post_treatment as a class of their own" in printed
    status, _, error = command("data", "check", machine.data / "fusion", "--task", "liver")
    assert status == 2 and "unknown task 'liver': expected one of brats, " in error
    status, _, error = command("data", "check", machine.data / "fusion", *TASK, "--labels", "msd")
    assert status == 2 and "task brats_post_treatment has no label values 'msd': expected brats2024" in error


def test_what_is_unclear_is_refused_here_too(command, tmp_path: Path) -> None:
    """Names of other challenges, words that leave the modality open, and the Decathlon's layout without an account."""
    write_case(tmp_path / "other", "BraTS-PED-00001-100", ("t2f",), 0)
    status, printed, _ = command("data", "check", tmp_path / "other", *TASK, "--details")
    assert status == 1 and "labels of another challenge than glioma" in printed
    write_case(tmp_path / "open", "a", ("t1n",), 0)
    (tmp_path / "open" / "a" / "a-t1n.nii.gz").rename(tmp_path / "open" / "a" / "a-t1-contrast.nii.gz")
    status, printed, _ = command("data", "check", tmp_path / "open", *TASK, "--details")
    assert status == 1 and "a-t1-contrast.nii.gz may be T1 or T1ce" in printed
    for source, folder in (("t2f", "imagesTr"), ("seg", "labelsTr")):
        write_case(tmp_path / folder, "a", ("t2f",), 0)
        (tmp_path / "d" / folder).mkdir(parents=True)
        (tmp_path / folder / "a" / f"a-{source}.nii.gz").rename(tmp_path / "d" / folder / "BRATS_001.nii.gz")
    file = tmp_path / "d" / "imagesTr" / "BRATS_001.nii.gz"
    image = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj)[..., None], image.affine), file)
    status, _, error = command("data", "check", tmp_path / "d", *TASK)
    assert status == 2 and "dataset.json does not exist" in error and "FLAIR, T1ce, T1, T2 for each channel" in error
    names = {"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "resection cavity": 4}
    described = {"channel_names": {"0": "T2-FLAIR"}, "labels": names}
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(described))
    status, printed, _ = command("data", "check", tmp_path / "d", *TASK)
    assert status == 0 and "found the Decathlon's layout: 1 case" in printed
    # A class is missing.
    described["labels"] = {name: value for name, value in names.items() if name != "resection cavity"}
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(described))
    status, printed, _ = command("data", "check", tmp_path / "d", *TASK, "--details")
    assert status == 1 and "labels in" in printed


def test_made_into_a_data_set_that_says_its_task(command, machine: SiteSettings, tmp_path: Path) -> None:
    status, *_ = command("data", "init", machine.data / "site-1", "--out", tmp_path / "site-1", *TASK)
    manifest = json.loads((tmp_path / "site-1" / "fedmepd-data.json").read_text())
    assert status == 0 and manifest["task"] == NAME and manifest["cases"][0]["labels"] == "brats2024"
    status, _, error = command("data", "check", tmp_path / "site-1")
    assert status == 2 and f"is a data set of task {NAME}, expected one of brats" in error
    with pytest.raises(DataError, match="expected one of brats") as refused:
        open_site_data("site-1", settings(), machine.model_copy(update={"data": tmp_path}))
    assert refused.value.public == f"the site's data are of task {NAME}, the job is of brats"
    status, _, error = command(
        "data", "split", machine.data / "fusion", tmp_path / "x", "--protocol", "brats2018", *TASK
    )
    assert status == 2 and "has no published protocol" in error


def test_there_are_no_phantoms(machine: SiteSettings) -> None:
    job = settings(task=NAME, data={"phantom": True})
    with pytest.raises(DataError, match=f"no phantoms of task {NAME}, of brats alone"):
        open_site_data("site-1", job, machine.model_copy(update={"data": None}))


def test_trained(run: Path) -> None:
    results = json.loads((run / "results" / "results.json").read_text())
    assert (results["status"], results["round"], results["settings"]["task"]) == ("finished", 2, NAME)
    for entry in (*results["sites"], results["server"]):
        assert list(entry["test"]["dice"]) == list(entry["test"]["hd95_mm"]) == REGIONS
    heads = console_table(results).splitlines()[2].split("  ")
    assert [head.strip() for head in heads if "Dice" in head or "HD95" in head] == [
        *(f"Dice {region}" for region in REGIONS),
        *(f"HD95 {region}" for region in REGIONS),
    ]
    network = load_model(run / "site-1" / "model_best.pt")
    assert network.task is find_task(NAME) and network.modalities == ("FLAIR", "T1ce")
    with torch.no_grad():
        assert network(torch.zeros(1, 2, 16, 16, 16), ("FLAIR", "T1ce")).shape == (1, 5, 16, 16, 16)
    # The cavity has anchors like every other class: two for each of five.
    assert {len(rows) for rows in network.anchors.values()} == {2 * 5}


def test_shown(run: Path, tmp_path: Path) -> None:
    card = (run / "site-1" / "model_card.md").read_text()
    assert card.startswith("# Segmentation of treated brain tumours: model of site-1\n")
    assert "Output: 0 background, 1 NETC, 2 SNFH, 3 ET, 4 RC." in card and "| ET | TC | WT | RC | mean |" in card
    assert (
        "It has never seen T1, T2" in card
        and "It was trained for glioma after treatment." in card
        and "TC, ET)" not in card
    )
    assert "Dice RC" in (run / "results" / "results.md").read_text()
    page = write_report(run / "results", tmp_path / "run").read_text()
    own = write_site_report(run / "site-1" / "site.json", tmp_path / "site").read_text()
    for text in (page, own):
        assert all(f"Dice {region}" in text and f"HD95 {region}" in text for region in REGIONS)
    history = json.loads((run / "results" / "history.json").read_text())
    assert [axis.get_title() for axis in figures.scores(history).axes] == REGIONS
    assert list((run / "site-1" / "overlays").glob("*.png"))


@pytest.fixture
def cavities(run: Path, tmp_path: Path) -> Path:
    """The trained model of site-1, made to call every voxel of the box around the brain a cavity."""
    content = load_tensors(run / "site-1" / "model_best.pt")
    content["state"]["decoder.classify.bias"] += torch.tensor([0.0, 0, 0, 0, 1e4])
    save_tensors(tmp_path / "cavities.pt", content)
    return tmp_path / "cavities.pt"


def box_of(brain: np.ndarray) -> np.ndarray:
    """The smallest box around a brain, as a mask (X, Y, Z)."""
    sides = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = np.zeros(brain.shape, dtype=bool)
    box[tuple(slice(side[0], side[-1] + 1) for side in sides)] = True
    return box


def test_segmented(command, machine: SiteSettings, run: Path, cavities: Path, tmp_path: Path) -> None:
    """With the model of site-1, on cases that have all modalities."""
    out, more = tmp_path / "out", ("--overlay", "--probabilities")
    status, printed, warned = command("predict", "--model", cavities, machine.data / "fusion", "--out", out, *more)
    assert status == 0 and "segmented 6 of 6 cases" in printed and "T1 T2 in 6 of 6 cases cannot be used" in warned
    name = "BraTS-GLI-00020-100"
    written = np.asanyarray(nibabel.load(out / f"{name}.nii.gz").dataobj)
    cavity = box_of(label_of(20)[1])
    assert np.array_equal(written, 4 * cavity)
    with open(out / "volumes.csv", newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert list(rows[name]) == ["case", "modalities", *(f"{region}_ml" for region in REGIONS)]
    assert float(rows[name]["RC_ml"]) == pytest.approx(cavity.sum() / 1000, abs=5e-4)
    assert {float(rows[name][f"{region}_ml"]) for region in REGIONS[:3]} == {0.0}
    files = {file.name for file in (out / "probabilities").glob(f"{name}*")}
    assert files == {f"{name}_{region}.nii.gz" for region in REGIONS} and (out / "overlays" / f"{name}.png").is_file()

    image = machine.data / "site-1" / "BraTS-GLI-00000-100" / "BraTS-GLI-00000-100-t1c.nii.gz"
    one = ("predict", "--model", run / "site-1" / "model_best.pt", "--t1ce", image, "--out", tmp_path / "one.nii.gz")
    status, *_ = command(*one, "--labels", "2024")
    assert status == 0 and set(np.unique(nibabel.load(tmp_path / "one.nii.gz").get_fdata())) <= {0, 1, 2, 3, 4}
    status, _, error = command(*one, "--overwrite", "--labels", "msd")
    assert status == 2 and "task brats_post_treatment has no label values 'msd'" in error
    status, _, error = command(*one, "--overwrite", "--min-enhancing", "0.1")
    assert status == 2 and "does not say what becomes of a class that is too small" in error


def test_scored(command, machine: SiteSettings, cavities: Path, tmp_path: Path) -> None:
    """By the model and by its files alike; the Dice of cavities by hand."""
    status, *_ = command("predict", "--model", cavities, machine.data / "site-1", "--out", tmp_path / "out")
    how = ("--predictions", tmp_path / "out", "--labels", machine.data / "site-1", "--out", tmp_path / "files")
    status, printed, _ = command("evaluate", *how, *TASK)
    assert status == 0 and "scored 6 cases" in printed and "RC" in printed
    report = json.loads((tmp_path / "files" / "evaluation.json").read_text())
    assert report["task"] == NAME and list(report["summary"]["regions"]) == REGIONS
    for number, case in enumerate(report["cases"]):
        label, brain = label_of(number)
        cavity = np.count_nonzero(label == 4)
        assert case["regions"]["RC"]["dice"] == pytest.approx(2 * cavity / (cavity + box_of(brain).sum()))
        assert case["regions"]["ET"]["dice"] == 0 and case["regions"]["ET"]["hd95_mm"] == pytest.approx(373.13)
    by_model = ("evaluate", "--model", cavities, machine.data / "site-1", "--out", tmp_path / "model")
    assert command(*by_model)[0] == 0
    assert json.loads((tmp_path / "model" / "evaluation.json").read_text())["cases"] == report["cases"]
    status, _, error = command(*by_model[:-1], tmp_path / "other", "--task", "brats")
    assert status == 2 and f"is a model of task {NAME}" in error


def test_exported(command, cavities: Path, tmp_path: Path) -> None:
    assert command("export", "bundle", "--model", cavities, tmp_path / "bundle")[0] == 0
    described = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    assert described["pred_classes"] == "0 background, 1 NETC, 2 SNFH, 3 ET, 4 RC"
    assert list(described["network_data_format"]["outputs"]["pred"]["channel_def"].values())[4] == "RC"
    config = json.loads((tmp_path / "bundle" / "configs" / "inference.json").read_text())
    assert config["label_values"] == [0, 1, 2, 3, 4]
    network = BundledNetwork(**{key: value for key, value in config["network_def"].items() if key != "_target_"})
    network.load_state_dict(load_tensors(tmp_path / "bundle" / "models" / "model.pt")["model"])
    image = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_model(cavities)(image, ("FLAIR", "T1ce"))
        assert torch.equal(network(image, ("FLAIR", "T1ce")), expected) and expected.shape[1] == 5
    out = tmp_path / "model.ts"
    assert command("export", "torchscript", "--model", cavities, out, "--window", 16)[0] == 0
    extra = {"fedmepd.json": ""}
    torch.testing.assert_close(torch.jit.load(out, _extra_files=extra)(image), expected, rtol=0, atol=1e-4)
    about = json.loads(extra["fedmepd.json"])
    assert (about["task"], about["classes"][4], about["labels"]) == (NAME, "RC", [0, 1, 2, 3, 4])
