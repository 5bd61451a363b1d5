from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import nibabel
import numpy as np
import pytest
import torch

from fedmepd.cli import main
from fedmepd.data.cases import Case
from fedmepd.data.manifest import FILE_NAME
from fedmepd.segmentation.segmenter import Segmenter
from fedmepd.storage import locked
from fedmepd.tasks.brats import BRATS
from tests.data.files import save, tumour, volume, write_case
from tests.segmentation.models import save_tiny


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FEDMEPD_DEVICE", "cpu")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model.pt")
    return tmp_path / "model.pt"


class InterruptedAfterACase(io.StringIO):
    """An output on which somebody presses Ctrl-C when the first case is there."""

    def write(self, text: str) -> int:
        super().write(text)
        if ": ml " in text:
            signal.raise_signal(signal.SIGINT)
        return len(text)


@pytest.fixture
def run(capsys: pytest.CaptureFixture):
    """Runs ``fedmepd predict``; returns exit status, standard output and standard error."""

    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["predict", *map(str, arguments)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


def image(tmp_path: Path, name: str, value: float = 100) -> Path:
    return save(tmp_path / "images" / f"{name}.nii.gz", volume(value))


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def test_an_interrupted_folder_says_how_to_go_on(tmp_path: Path, model: Path, run, monkeypatch, capsys) -> None:
    for name in "abc":
        write_case(tmp_path / "data", name)
    arguments = ("--model", model, tmp_path / "data", "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", InterruptedAfterACase())
        assert main(["predict", *map(str, arguments)]) == 130
    how = f"segmented 1 of 3 cases in {tmp_path / 'out'}; the same command with --resume segments the others"
    assert capsys.readouterr().err.splitlines()[-2:] == [how, "fedmepd: interrupted"]
    status, printed, _ = run(*arguments, "--resume")
    assert status == 0 and "segmented already: 1 case; left: 2" in printed


def test_one_case(tmp_path: Path, model: Path, run) -> None:
    flair, t1ce = image(tmp_path, "a"), image(tmp_path, "b", 300)
    out = tmp_path / "new" / "seg.nii.gz"
    status, printed, warned = run("--model", model, "--flair", flair, "--t1ce", t1ce, "--out", out)
    assert (status, warned) == (0, "")
    found = nibabel.load(out)
    assert found.shape == (8, 9, 10) and found.get_data_dtype() == np.uint8
    assert np.array_equal(found.affine, nibabel.load(flair).affine)
    labels = np.asanyarray(found.dataobj)
    assert set(np.unique(labels)) <= {0, 1, 2, 4}
    [row] = rows(tmp_path / "new" / "seg_volumes.csv")
    assert list(row) == ["case", "modalities", "WT_ml", "TC_ml", "ET_ml"]
    assert (row["case"], row["modalities"]) == ("seg", "FLAIR T1ce")
    for region, values in {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}.items():
        assert float(row[f"{region}_ml"]) == pytest.approx(np.isin(labels, values).sum() / 1000)
    assert printed.splitlines()[-1] == f"wrote {out} and {tmp_path / 'new' / 'seg_volumes.csv'}"
    assert sorted(path.name for path in out.parent.iterdir()) == ["seg.nii.gz", "seg_volumes.csv"]


def test_labels_and_more_files(tmp_path: Path, model: Path, run) -> None:
    flair, out = image(tmp_path, "a"), tmp_path / "s.nii"
    case = Case("s", {"FLAIR": flair}, None, task=BRATS)
    segmentation = Segmenter(model, torch.device("cpu")).segment(case)
    classes = np.select([segmentation.image("brats").get_fdata() == value for value in (1, 2, 4)], (1, 2, 3))
    assert set(np.unique(classes)) == {0, 1, 2, 3}
    # What necrosis, oedema and enhancing tumour are called.
    newer, decathlon = (0, 1, 2, 3), (0, 2, 1, 3)
    meant = {None: (0, 1, 2, 4), "brats": (0, 1, 2, 4), "2023": newer, "brats2023": newer, "msd": decathlon}
    for convention, values in meant.items():
        chosen = () if convention is None else ("--labels", convention)
        more = ("--overwrite", "--overlay", "--probabilities", *chosen)
        status, *_ = run("--model", model, "--flair", flair, "--out", out, *more)
        assert status == 0 and np.array_equal(nibabel.load(out).get_fdata(), np.take(values, classes))
    names = ["s.nii", "s_overlay.png", "s_volumes.csv", *(f"s_probability_{name}.nii" for name in ("WT", "TC", "ET"))]
    assert sorted(path.name for path in tmp_path.glob("s*") if path.is_file()) == sorted(names)
    for region in ("WT", "TC", "ET"):
        written = nibabel.load(tmp_path / f"s_probability_{region}.nii").get_fdata()
        assert np.array_equal(written, segmentation.probability_image(region).get_fdata())
    status, _, error = run("--model", model, "--flair", flair, "--out", out, "--overwrite", "--labels", "2030")
    assert status == 2 and "task brats has no label values '2030': expected brats (BraTS until 2021" in error


def test_other_modalities_than_the_model_has(tmp_path: Path, model: Path, run) -> None:
    t1ce, t2 = image(tmp_path, "a"), image(tmp_path, "b", 300)
    status, printed, warned = run("--model", model, "--t1ce", t1ce, "--t2", t2, "--out", tmp_path / "s.nii.gz")
    assert status == 0 and "from T1ce;" in printed
    assert warned.splitlines() == [
        "warning: the model was trained with FLAIR T1ce; FLAIR is missing: expect a less accurate segmentation",
        "warning: the model was trained with FLAIR T1ce; T2 cannot be used and is ignored",
    ]
    status, _, error = run("--model", model, "--t2", t2, "--out", tmp_path / "other.nii.gz")
    assert status == 2 and "case other has T2 only, the model was trained with FLAIR T1ce" in error


def test_refused_before_anything_is_done(tmp_path: Path, model: Path, run) -> None:
    """Each ends in one line that says what is wrong, and leaves everything as it was."""
    flair = image(tmp_path, "a")
    there = save(tmp_path / "there.nii.gz", tumour())
    text = tmp_path / "text.pt"
    text.write_text("no model")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    other_grid = save(tmp_path / "images" / "grid.nii.gz", volume(300, (8, 9, 11)))
    broken = tmp_path / "images" / "broken.nii.gz"
    broken.write_bytes(flair.read_bytes()[:50])
    out = tmp_path / "s.nii.gz"
    data = tmp_path / "data"
    write_case(data, "x")
    before = there.read_bytes()
    for message, arguments in {
        "expected either a folder or the images": ("--model", model, "--out", out),
        "either a folder or the": ("--model", model, data, "--flair", flair, "--out", out),
        "--flair .*gone.nii does not exist": ("--model", model, "--flair", tmp_path / "gone.nii", "--out", out),
        "--out .* is the image of --flair": ("--model", model, "--flair", flair, "--out", flair),
        "ends in .nii.gz or .nii": ("--model", model, "--flair", flair, "--out", tmp_path / "s.img"),
        "there.nii.gz exists already.*--overwrite": ("--model", model, "--flair", flair, "--out", there),
        "gone.pt does not exist": ("--model", tmp_path / "gone.pt", "--flair", flair, "--out", out),
        "text.pt cannot be read as": ("--model", text, "--flair", flair, "--out", out),
        "no fedmepd model; import it": ("--model", tmp_path / "other.pt", "--flair", flair, "--out", out),
        "register and resample": ("--model", model, "--flair", flair, "--t1ce", other_grid, "--out", out),
        "hold the same values as FLAIR and T1ce": ("--model", model, "--flair", flair, "--t1ce", flair, "--out", out),
        "broken.nii.gz cannot be read as NIfTI": ("--model", model, "--flair", broken, "--out", out),
        "--follow-links: expected a folder": ("--model", model, "--flair", flair, "--out", out, "--follow-links"),
        "--resume: expected a folder": ("--model", model, "--flair", flair, "--out", out, "--resume"),
        "sliding window: window = 20": ("--model", model, "--flair", flair, "--out", out, "--window", 20),
        "device 'tpu'": ("--model", model, "--flair", flair, "--out", out, "--device", "tpu"),
        "data/out is inside": ("--model", model, data, "--out", data / "out"),
        "there.nii.gz: expected a folder": ("--model", model, data, "--out", there),
        "s.nii.gz: expected a folder": ("--model", model, data, "--out", out),
        "nowhere cannot be read": ("--model", model, tmp_path / "nowhere", "--out", tmp_path / "out"),
        "no case in": ("--model", model, tmp_path / "images", "--out", tmp_path / "out"),
    }.items():
        status, printed, error = run(*arguments)
        assert status == 2 and printed == "" and error.splitlines()[-1].startswith("fedmepd: "), message
        assert re.search(message, error), (message, error)
        assert not out.exists() and there.read_bytes() == before and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        run("--model", model, "--flair", flair, "--out", out, "--min-component", "-1")


def test_a_folder(tmp_path: Path, model: Path, run) -> None:
    """A bad case stops no other, and the exit status tells."""
    data, out = tmp_path / "data", tmp_path / "out"
    for name in ("a", "c"):
        write_case(data, name)
    write_case(data, "b", T1ce=volume(500, (8, 9, 11)))
    write_case(data, "d", modalities=("T1",))
    write_case(data, "e", modalities=("FLAIR",), label=None)
    save(data / "stray_flair.nii.gz", volume(500))
    arguments = ("--model", model, data, "--out", out, "--overlay", "--probabilities")
    status, printed, warned = run(*arguments)
    assert status == 1
    assert [line.partition(":")[0] for line in printed.splitlines()[:-1]] == ["a", "c", "e"]
    assert printed.splitlines()[-1] == f"segmented 3 of 5 cases in {out}; 2 errors"
    assert "error: b is not segmented: " in warned and "error: d is not segmented: case d has T1 only" in warned
    assert "stray_flair.nii.gz: put the images of each case into a folder of its own" in warned
    assert "T1ce is missing in 1 of 5 cases" in warned and "T1 T2 in 3 of 5 cases cannot be used" in warned
    assert sorted(path.name for path in out.glob("[!.]*.*")) == ["a.nii.gz", "c.nii.gz", "e.nii.gz", "volumes.csv"]
    assert [path.name for path in sorted((out / "overlays").iterdir())] == ["a.png", "c.png", "e.png"]
    assert len(list((out / "probabilities").glob("?_[WTE][TC].nii.gz"))) == 9
    assert [row["case"] for row in rows(out / "volumes.csv")] == ["a", "c", "e"]
    # Again: refused, unless the user says what is to become of what is there.
    old = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    status, _, error = run(*arguments)
    assert status == 2 and "holds the segmentations of 3 of 5 cases already" in error and "--resume" in error
    save(data / "b" / "b_t1ce.nii.gz", volume(500))
    (out / "c.nii.gz").unlink()
    status, printed, _ = run(*arguments, "--resume")
    assert status == 1 and "segmented already: 2 cases; left: 3" in printed
    assert [row["case"] for row in rows(out / "volumes.csv")] == ["a", "b", "c", "e"]
    assert (out / "a.nii.gz").stat().st_mtime_ns == old["a.nii.gz"] and (out / "c.nii.gz").exists()
    (data / "d" / "d_t1.nii.gz").unlink()
    (data / "d" / "d_seg.nii.gz").unlink()
    status, printed, _ = run(*arguments, "--overwrite")
    assert status == 0 and (out / "a.nii.gz").stat().st_mtime_ns > old["a.nii.gz"]


def test_cases_that_no_file_can_be_named_after(tmp_path: Path, model: Path, run) -> None:
    for folder in ("x", "y"):
        write_case(tmp_path / "data" / folder, "BraTS2021_00001")
    write_case(tmp_path / "data", "other")
    status, printed, warned = run("--model", model, tmp_path / "data", "--out", tmp_path / "out")
    assert status == 1 and "two cases of one name, BraTS2021_00001" in warned
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["other.nii.gz"]


def test_two_at_a_time_do_not_write_into_one_folder(tmp_path: Path, model: Path, run) -> None:
    """Each would write a table with its own volumes alone."""
    write_case(tmp_path / "data", "a", ("FLAIR", "T1ce"))
    with locked(tmp_path / "out" / ".lock", ""):
        status, _, errors = run("--model", model, tmp_path / "data", "--out", tmp_path / "out")
    assert status == 2 and "another `fedmepd predict` writes to" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_a_table_of_something_else_is_kept(tmp_path: Path, model: Path, run) -> None:
    write_case(tmp_path / "data", "a", ("FLAIR", "T1ce"))
    table = tmp_path / "out" / "volumes.csv"
    table.parent.mkdir()
    for text in ("case,modalities,lesion_ml\nx,T1,3.000\n", 'case,"'):
        table.write_text(text)
        status, _, errors = run("--model", model, tmp_path / "data", "--out", tmp_path / "out")
        assert (
            status == 2 and f"{table} is no table of this model's task" in errors and "choose another --out" in errors
        )
        assert table.read_text() == text and not list(table.parent.glob("*.nii.gz"))


def test_a_reader_that_has_seen_enough(tmp_path: Path, model: Path) -> None:
    for name in ("a", "b"):
        write_case(tmp_path / "data", name, ("FLAIR", "T1ce"))
    command = ["predict", "--model", model, tmp_path / "data", "--out", tmp_path / "out"]
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        run = subprocess.run([sys.executable, "-m", "fedmepd.cli", *command], stdout=pipe, stderr=pipe)
    assert run.returncode == 0
    assert [row["case"] for row in rows(tmp_path / "out" / "volumes.csv")] == ["a", "b"]


def test_another_folders_cases_keep_their_volumes(tmp_path: Path, model: Path, run) -> None:
    out = tmp_path / "out"
    for name in ("a", "b"):
        write_case(tmp_path / name, name)
        assert run("--model", model, tmp_path / name, "--out", out)[0] == 0
    [first, _] = rows(out / "volumes.csv")
    assert [row["case"] for row in rows(out / "volumes.csv")] == ["a", "b"] and (out / "a.nii.gz").exists()
    assert run("--model", model, tmp_path / "b", "--out", out, "--overwrite")[0] == 0
    assert rows(out / "volumes.csv")[0] == first
    # Without its segmentation a row says nothing any more.
    (out / "a.nii.gz").unlink()
    assert run("--model", model, tmp_path / "b", "--out", out, "--overwrite")[0] == 0
    assert [row["case"] for row in rows(out / "volumes.csv")] == ["b"]


def test_a_data_set_with_a_manifest(tmp_path: Path, model: Path, run) -> None:
    data = tmp_path / "site"
    for name in ("a", "b"):
        write_case(data, name)
    assert main(["data", "init", str(data)]) == 0
    assert run("--model", model, data, "--out", tmp_path / "out")[0] == 0
    status, _, error = run("--model", model, tmp_path, "--out", tmp_path.parent / "elsewhere")
    assert status == 2 and "holds 1 site of a federation" in error and str(data) in error
    # A link may lead elsewhere only as long as the content is the one that was pinned.
    file = data / "a" / "a_flair.nii.gz"
    file.unlink()
    file.symlink_to(save(tmp_path / "other.nii.gz", volume(7)))
    status, _, error = run("--model", model, data, "--out", tmp_path / "out", "--overwrite")
    assert status == 2 and "a_flair.nii.gz has changed" in error
    (data / FILE_NAME).unlink()
    status, _, error = run("--model", model, data, "--out", tmp_path / "out", "--overwrite")
    assert status == 1 and "leads out of" in error and "--follow-links" in error
    assert run("--model", model, data, "--out", tmp_path / "out", "--overwrite", "--follow-links")[0] == 0


def test_a_folder_that_cannot_be_written(tmp_path: Path, model: Path, run) -> None:
    write_case(tmp_path / "data", "a")
    (tmp_path / "file").touch()
    status, _, error = run("--model", model, tmp_path / "data", "--out", tmp_path / "file" / "out")
    assert status == 2 and str(tmp_path / "file") in error


REFUSED = "was trained on phantoms alone, never on a patient: what it marks in"


def test_a_model_of_phantoms_is_refused_on_patients(tmp_path: Path, run) -> None:
    """Before anything is computed; with the option it warns, in the picture too."""
    model, out = tmp_path / "model.pt", tmp_path / "out"
    save_tiny(model, phantoms=True)
    write_case(tmp_path / "data", "p")
    status, printed, error = run("--model", model, tmp_path / "data", "--out", out)
    assert status == 2 and not printed and not out.exists()
    assert error.count("\n") == 1 and f"{REFUSED} p means nothing" in error and "--phantom-model-on-patients" in error
    flair = image(tmp_path, "a")
    status, _, error = run("--model", model, "--flair", flair, "--out", tmp_path / "s.nii.gz")
    assert status == 2 and f"{REFUSED} s means nothing" in error
    option = ("--phantom-model-on-patients", "--overlay")
    status, _, error = run("--model", model, tmp_path / "data", "--out", out, *option)
    assert status == 0 and error.startswith("warning: the model") and f"{REFUSED} p means nothing" in error
    save_tiny(model, phantoms=False)
    status, *_ = run("--model", model, tmp_path / "data", "--out", tmp_path / "other", "--overlay")
    assert status == 0
    heights = [matplotlib.image.imread(folder / "overlays" / "p.png").shape[0] for folder in (out, tmp_path / "other")]
    assert heights[0] > heights[1]


def test_a_model_of_phantoms_segments_phantoms(tmp_path: Path, run) -> None:
    save_tiny(tmp_path / "model.pt", phantoms=True)
    write_case(tmp_path / "data", "Phantom_site-1_001", ("FLAIR", "T1ce"))
    status, _, error = run("--model", tmp_path / "model.pt", tmp_path / "data", "--out", tmp_path / "out")
    assert (status, error) == (0, "")


def test_unlike_the_training_is_said_before_the_case_is_segmented(tmp_path: Path, run) -> None:
    save_tiny(tmp_path / "model.pt", voxel_mm=(1.0, 1.0, 3.0), foreground_ml=1200.0)
    flair = image(tmp_path, "a")
    status, _, error = run("--model", tmp_path / "model.pt", "--flair", flair, "--out", tmp_path / "s.nii.gz")
    assert status == 0 and [line.partition(",")[0] for line in error.splitlines()[1:]] == [
        "warning: case s has voxels of 1 x 1 x 1 mm",
        "warning: case s is above 0 in 0 ml",
    ]
