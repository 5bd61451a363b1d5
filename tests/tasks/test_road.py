"""Every task but the default one on the whole road, with the commands that its user gives: from one folder of patients
to a federation, and from its models to segmentations, scores and files for other software.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from fedmepd.cli import main
from fedmepd.federation.in_process import run_in_process
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.find import find_task
from tests.tasks import lesions, post_treatment, prostates
from tests.tiny import settings

CASES = 9


@dataclass(frozen=True)
class World:
    """Made cases of a task.

    Args:
        task: its name.
        write: writes a case with all modalities, by its number, into a folder.
        sites: modalities of two sites; the fusion site has all.
        window: side of the inference window, so that a few windows see a case.
        compared: what of a case is compared with those of the training.
    """

    task: str
    write: Callable[[Path, int], None]
    sites: tuple[tuple[str, ...], tuple[str, ...]]
    window: int
    compared: set[str]


WORLDS = [
    World(
        "ms_lesions",
        lambda folder, number: lesions.write_case(folder / f"patient-{number}", tuple(lesions.FILES), number),
        (("FLAIR", "T1"), ("T2",)),
        32,
        {"foreground_ml", "intensities"},
    ),
    World(
        "prostate",
        lambda folder, number: prostates.write_case(folder / f"patient-{number}", ("T2", "ADC"), number),
        (("T2", "ADC"), ("T2",)),
        24,
        {"intensities"},
    ),
    World(
        "brats_post_treatment",
        lambda folder, number: post_treatment.write_case(
            folder, f"BraTS-GLI-{number:05d}-100", ("t2f", "t1c", "t1n", "t2w"), number
        ),
        (("FLAIR", "T1ce"), ("T2",)),
        24,
        {"voxel_mm", "foreground_ml", "intensities"},
    ),
]


# The other two have tests of their own for most of the road.
@pytest.mark.parametrize(
    "world", [WORLDS[0], *(pytest.param(of, marks=pytest.mark.slow) for of in WORLDS[1:])], ids=lambda world: world.task
)
def test_from_a_folder_to_a_model_and_its_scores(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    task, of_task = find_task(world.task), ("--task", world.task)
    machine = SiteSettings(data=tmp_path / "sites", cache=tmp_path / "cache", device="cpu")
    monkeypatch.setenv("FEDMEPD_CACHE", str(machine.cache))
    monkeypatch.setenv("FEDMEPD_DEVICE", "cpu")

    def command(*arguments: object) -> str:
        status = main([str(argument) for argument in arguments])
        printed, errors = capsys.readouterr()
        assert status == 0, printed + errors
        return printed + errors

    for number in range(CASES):
        world.write(tmp_path / "all", number)
    assert f"no error in {CASES} cases" in command("data", "check", tmp_path / "all", *of_task)
    plan = [{"name": "fusion", "modalities": list(task.modalities), "cases": 3}]
    plan += [{"name": f"ward-{place}", "modalities": list(of), "cases": 3} for place, of in enumerate(world.sites)]
    (tmp_path / "sites.yaml").write_text(json.dumps({"sites": plan}))
    how = ("--sites", tmp_path / "sites.yaml", "--train", 0.34, "--validation", 0.33, *of_task)
    told = command("data", "split", tmp_path / "all", tmp_path / "sites", *how)
    assert f"--set task={world.task}" in told and f"simulator jobs_own/fedmepd_{world.task} " in told

    made = settings(task=world.task, rounds=2, evaluation={"window": world.window})
    results = run_in_process(made, machine, tmp_path / "run", ["ward-0", "ward-1"])
    assert (results["status"], results["round"]) == ("finished", 2)
    assert list(results["sites"][1]["test"]["dice"]) == list(task.regions)

    model, ward = tmp_path / "run" / "ward-0" / "model_best.pt", tmp_path / "sites" / "ward-0"
    exact = ("--precision", "float32")
    command("predict", "--model", model, ward, "--out", tmp_path / "out", "--probabilities", "--overlay", *exact)
    with open(tmp_path / "out" / "volumes.csv", newline="") as file:
        volumes = {row["case"]: row for row in csv.DictReader(file)}
    written = sorted((tmp_path / "out").glob("*.nii.gz"))
    assert len(written) == len(volumes) == 3
    for file in written:
        name = file.name.removesuffix(".nii.gz")
        found, image = nibabel.load(file), nibabel.load(ward / name / task.file_name(name, world.sites[0][0]))
        assert found.shape == image.shape and np.array_equal(found.affine, image.affine)
        classes = np.asanyarray(found.dataobj)
        of_class = dict(enumerate(task.label_of_class(task.default_convention)))
        for region, members in task.regions.items():
            # On the grid of the file that was written, in ml.
            voxels = np.isin(classes, [of_class[member] for member in members]).sum()
            expected = voxels * abs(np.linalg.det(image.affine[:3, :3])) / 1000
            assert float(volumes[name][f"{region}_ml"]) == pytest.approx(expected, abs=6e-4), (name, region)

    files = ("--predictions", tmp_path / "out", "--labels", ward, *of_task)
    command("evaluate", *files, "--out", tmp_path / "by_files")
    command("evaluate", "--model", model, ward, "--part", "all", "--out", tmp_path / "by_model", *exact)
    by_files, by_model = (
        json.loads((tmp_path / name / "evaluation.json").read_text())["cases"] for name in ("by_files", "by_model")
    )
    assert by_files == by_model and len(by_files) == 3

    command("export", "bundle", "--model", model, tmp_path / "bundle")
    command("export", "torchscript", "--model", model, tmp_path / "model.ts", "--window", 16)
    assert json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())["name"].startswith(task.title)
    extra = {"fedmepd.json": ""}
    torch.jit.load(str(tmp_path / "model.ts"), _extra_files=extra)
    assert json.loads(extra["fedmepd.json"])["trained_with"].keys() == world.compared
