"""A published checkpoint segments a case in two commands, as the paper's formulas written down slowly do."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from fedmepd.cli import main
from tests.cli.test_program import publish
from tests.data.files import save
from tests.networks import golden, oracle

# The side of the brain's box is a multiple of 8 along every axis, so that the box is one window without padding.
BOX = (24, 16, 32)


def checkpoint(kind: str, path: Path) -> tuple[dict, dict | None]:
    """Puts a checkpoint in the authors' layout at ``path``; returns its state and anchors."""
    if kind != "golden":
        return publish(path, calibrated=kind == "client")
    shutil.copy(golden.FOLDER / "rfnet_w4_client.pth", path)
    return golden.checkpoint()


def write_images(folder: Path) -> tuple[dict[str, Path], torch.Tensor]:
    """Writes FLAIR, T1 and T2 of a case, brain in a border of 0; returns the files and what the network is to see."""
    random = np.random.default_rng(3)
    files, seen = {}, torch.zeros(1, 4, *BOX)
    for place, name in enumerate(oracle.MODALITIES):
        if name == "T1ce":
            continue
        brain = random.integers(50, 900, BOX).astype("int16")
        files[name] = save(folder / f"{name}.nii.gz", np.pad(brain, 3))
        normalised = (brain - brain.mean()) / brain.std()
        seen[0, place] = torch.from_numpy(normalised.astype("float16").astype("float32"))
    return files, seen


@pytest.mark.parametrize(
    "kind",
    [
        "server",
        "client",
        pytest.param(
            "golden", marks=pytest.mark.skipif(not golden.AVAILABLE, reason="the golden numbers are not here")
        ),
    ],
)
def test_import_then_predict(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    state, anchors = checkpoint(kind, tmp_path / "published.pth")
    files, seen = write_images(tmp_path)

    assert main(["checkpoint", "import", str(tmp_path / "published.pth"), str(tmp_path / "model.pt")]) == 0
    images = [part for name, file in files.items() for part in (f"--{name.lower()}", str(file))]
    how = ["--probabilities", "--precision", "float32", "--device", "cpu"]
    out = tmp_path / "seg.nii.gz"
    assert main(["predict", "--model", str(tmp_path / "model.pt"), *images, "--out", str(out), *how]) == 0
    assert "T1ce is missing" in capsys.readouterr().err

    with torch.no_grad():
        outputs = oracle.forward(state, seen, [True, False, True, True], anchors, training=False)
    expected = outputs.segmentation[0].numpy()
    inside = (slice(3, -3),) * 3
    for region, classes in {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}.items():
        found = nibabel.load(tmp_path / f"seg_probability_{region}.nii.gz").get_fdata()
        assert np.allclose(found[inside], expected[list(classes)].sum(axis=0), atol=2e-4)
        assert found.sum() == pytest.approx(found[inside].sum())
    labels = np.asanyarray(nibabel.load(out).dataobj)[inside]
    first, second = np.sort(expected, axis=0)[[-1, -2]]
    clear = first - second > 1e-3
    assert clear.mean() > 0.9 and len(np.unique(labels[clear])) > 1
    assert np.array_equal(labels[clear], np.array([0, 1, 2, 4])[expected.argmax(axis=0)][clear])
