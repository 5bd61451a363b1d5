"""A task whose images lie on grids of their own, all the way: checked, trained on, segmented, scored, exported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from fedmepd.cli import main
from fedmepd.data.inspection import inspect_cases
from fedmepd.data.layouts import find_dataset
from fedmepd.data.preparation import prepare_case
from fedmepd.evaluation.metrics import case_scores
from fedmepd.federation.in_process import run_in_process
from fedmepd.segmentation.segmenter import Segmenter
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.find import find_task
from tests.tasks.prostates import SITES, gland, grid_of, write, write_case
from tests.tiny import settings

NAME = "prostate"
TASK = find_task(NAME)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> SiteSettings:
    folder = tmp_path_factory.mktemp("prostate")
    return SiteSettings(data=write(folder / "data"), cache=folder / "cache", device="cpu")


@pytest.fixture(scope="module")
def run(machine: SiteSettings) -> Path:
    """The folder of a federation's run of two rounds."""
    folder = machine.cache.parent / "run"
    run_in_process(settings(task=NAME, rounds=2), machine, folder, list(SITES))
    return folder


@pytest.fixture
def command(
    machine: SiteSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Runs ``fedmepd ...``; returns exit status, output and errors."""
    monkeypatch.setenv("FEDMEPD_CACHE", str(machine.cache))
    monkeypatch.setenv("FEDMEPD_DEVICE", "cpu")

    def given(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    yield given


def test_checked(command, machine: SiteSettings, tmp_path: Path) -> None:
    """Images on grids of their own, and in no brain, are nothing to be warned of."""
    status, printed, _ = command("data", "check", machine.data / "fusion", "--task", NAME)
    assert status == 0 and "no error in 6 cases" in printed and "warning" not in printed
    assert "masks of the gland: 0, 1 prostate" in printed
    status, printed, _ = command("data", "init", machine.data / "fusion", "--task", NAME, "--out", tmp_path / "out")
    assert status == 0


def test_images_of_different_places_are_refused(tmp_path: Path) -> None:
    write_case(tmp_path / "data" / "a", ("T2", "ADC"), 0)
    file = tmp_path / "data" / "a" / "adc.nii.gz"
    image = nibabel.load(file)
    affine = image.affine.copy()
    affine[2, 3] += 200
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine), file)
    found = inspect_cases(find_dataset(TASK, tmp_path / "data").cases).findings
    assert [one.kind for one in found if one.severity == "error"] == ["images of a case that show different places"]


def test_prepared_on_one_grid(machine: SiteSettings) -> None:
    """Gland and label lie at the same place in both images, with voxels of the task's size; nothing is cropped."""
    [case] = [case for case in find_dataset(TASK, machine.data / "fusion").cases if case.name == "patient-23"]
    [case] = inspect_cases([case]).cases
    item = prepare_case(case)
    (shape, _), sizes = grid_of("T2", 23), (0.8, 0.8, 3.0)
    expected = [round(side * size / to) for side, size, to in zip(shape, sizes, TASK.voxel_mm, strict=True)]
    assert list(item["image"].shape) == [2, *expected] and item["corner"].tolist() == [0, 0, 0]
    assert item["spacing"].tolist() == pytest.approx(TASK.voxel_mm)
    label = item["label"][0].numpy() > 0
    t2, adc = item["image"].float().numpy()
    assert t2.min() == 0 and t2.max() == 1
    bright, dark = t2 > 0.5, (adc < 0.5) & (adc > 0)
    for seen in (bright, dark):
        assert 2 * np.count_nonzero(seen & label) / (np.count_nonzero(seen) + np.count_nonzero(label)) > 0.85


def brightness(network, images, modalities, *rest, **options) -> torch.Tensor:
    """Calls prostate what is bright in T2: what a perfect network would do."""
    gland = (images[0, list(modalities).index("T2")] > 0.5).float()
    return torch.stack([1 - gland, gland])


def test_segmentations_come_back_to_the_grid_of_the_first_image(machine: SiteSettings, run: Path) -> None:
    segmenter = Segmenter(run / "server" / "global_best.pt", CPU, infer=brightness)
    for case in find_dataset(TASK, machine.data / "fusion").cases:
        assert segmenter.check(case) == []
        segmentation = segmenter.segment(segmenter.usable(case))
        number = int(case.name.partition("-")[2])
        shape, affine = grid_of("T2", number)
        image, truth = segmentation.image("prostate"), gland(number, shape, affine)
        assert image.shape == shape and image.affine == pytest.approx(affine, abs=1e-5)
        found = np.asarray(image.dataobj)
        assert case_scores(TASK, found, truth.astype("uint8"), (0.8, 0.8, 3.0)).dice["prostate"] > 0.93
        probable = np.asarray(segmentation.probability_image("prostate").dataobj)
        # Probabilities are interpolated, classes are those of the nearest voxel.
        assert probable.shape == shape and np.mean((probable > 0.5) == (found > 0)) > 0.99
        assert segmentation.millilitres["prostate"] == pytest.approx(truth.sum() * 0.8 * 0.8 * 3 / 1000, rel=0.1)
        # On the grid of another file of the case.
        shape, affine = grid_of("ADC", number)
        coarse = np.asarray(segmentation.image("prostate", like=case.images["ADC"]).dataobj)
        truth = gland(number, shape, affine)
        assert coarse.shape == shape and 2 * (truth & (coarse > 0)).sum() / (truth.sum() + (coarse > 0).sum()) > 0.8


def test_trained_and_told(run: Path) -> None:
    results = json.loads((run / "results" / "results.json").read_text())
    assert (results["status"], results["round"], results["settings"]["task"]) == ("finished", 2, NAME)
    assert list(results["server"]["test"]["lesions"]) == ["prostate"]
    card = (run / "site-1" / "model_card.md").read_text()
    assert "resampled to 0.6 x 0.6 x 3 mm" in card and "percentiles 0.5 and 99.5 to 0 and 1 over the whole" in card
    assert "head" not in card and "brain" not in card


def test_scored_by_files_by_model_and_in_the_run_alike(
    command, machine: SiteSettings, run: Path, tmp_path: Path
) -> None:
    """On the label's own grid, wherever the network looked."""
    model, data = run / "site-1" / "model_best.pt", machine.data / "site-1"
    how = ("--precision", "float32")
    assert command("predict", "--model", model, data, "--out", tmp_path / "out", *how)[0] == 0
    files = ("--predictions", tmp_path / "out", "--labels", data, "--task", NAME)
    assert command("evaluate", *files, "--out", tmp_path / "files")[0] == 0
    assert command("evaluate", "--model", model, data, "--out", tmp_path / "model", *how)[0] == 0
    by_files, by_model = (
        json.loads((tmp_path / name / "evaluation.json").read_text())["cases"] for name in ("files", "model")
    )
    assert by_files == by_model and len(by_files) == 6
    site = json.loads((run / "results" / "results.json").read_text())["sites"][0]
    # The site's test cases are some of these six.
    number = site["cases"]["test"]
    of_cases = [case["regions"]["prostate"]["dice"] for case in by_files]
    means = [np.mean(some) for some in combinations(of_cases, number)]
    assert 0 < number < 6 and any(site["test"]["dice"]["prostate"] == pytest.approx(mean, abs=2e-3) for mean in means)


def test_a_label_on_another_grid_than_the_only_image(command, machine: SiteSettings, run: Path, tmp_path: Path) -> None:
    """ADC alone, outlined on T2: the scores are on the grid of the label."""
    write_case(tmp_path / "data" / "patient-7", ("ADC",), 7)
    model = run / "server" / "global_best.pt"
    status, printed, _ = command("data", "check", tmp_path / "data", "--task", NAME)
    assert status == 0 and "no error in 1 case" in printed
    assert command("evaluate", "--model", model, tmp_path / "data", "--out", tmp_path / "out")[0] == 0
    [case] = json.loads((tmp_path / "out" / "evaluation.json").read_text())["cases"]
    millilitres = gland(7, *grid_of("T2", 7)).sum() * 0.8 * 0.8 * 3 / 1000
    assert case["regions"]["prostate"]["label_ml"] == pytest.approx(millilitres, rel=1e-5)


def test_the_bundle_gives_the_same_voxels_as_predict(command, machine: SiteSettings, run: Path, tmp_path: Path) -> None:
    from monai.bundle import run as run_bundle

    model, case = run / "server" / "global_best.pt", machine.data / "fusion" / "patient-21"
    files = {modality: case / f"{modality.lower()}.nii.gz" for modality in TASK.modalities}
    how = ("--t2", files["T2"], "--adc", files["ADC"], "--out", tmp_path / "out.nii.gz", "--precision", "float32")
    assert command("predict", "--model", model, *how)[0] == 0
    assert command("export", "bundle", "--model", model, tmp_path / "bundle")[0] == 0
    run_bundle(
        config_file=str(tmp_path / "bundle" / "configs" / "inference.json"),
        bundle_root=str(tmp_path / "bundle"),
        output_dir=str(tmp_path / "seg"),
        precision="float32",
        device="$torch.device('cpu')",
        **{name: str(file) for name, file in files.items()},
    )
    [written] = (tmp_path / "seg").glob("*_seg.nii.gz")
    found, expected = nibabel.load(written), nibabel.load(tmp_path / "out.nii.gz")
    assert found.shape == expected.shape and found.affine == pytest.approx(expected.affine, abs=1e-4)
    assert np.array_equal(np.asanyarray(found.dataobj), np.asanyarray(expected.dataobj))
    assert len(np.unique(np.asanyarray(expected.dataobj))) == 2
