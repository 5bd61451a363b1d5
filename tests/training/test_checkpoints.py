from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fedmepd
from fedmepd.errors import CheckpointError
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS
from fedmepd.training.checkpoints import About, describe, load_model, save_model

SCORES = {"dice": {"WT": 0.5, "TC": 0.25, "ET": 0.0}, "mdsc": 0.25}


def site(shared_encoder: bool = False) -> FedMEPDNet:
    calibration = {"residual": True, "dropout": 0.25}
    net = FedMEPDNet(BRATS, ("FLAIR", "T2"), 4, calibration=calibration, shared_encoder=shared_encoder).start(3)
    for parameter in net.calibration.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    net.anchors = {level: torch.randn(5, 4 * 2 ** (level - 1)) for level in (1, 2, 3, 4)}
    return net


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    save_model(path, site(), About("site-2", "fedmepd", 12, SCORES))
    return path


@pytest.mark.parametrize("kind", ["site", "shared encoder", "server"])
def test_round_trip(kind: str, tmp_path: Path) -> None:
    net = FedMEPDNet(BRATS, width=8).start(3) if kind == "server" else site(kind == "shared encoder")
    save_model(tmp_path / "model.pt", net.train(), About("x", "fedmepd", 1))
    # The package's public name of the same function.
    loaded = fedmepd.load_model(str(tmp_path / "model.pt"))
    assert not loaded.training and next(loaded.parameters()).device.type == "cpu"
    assert loaded.modalities == net.modalities and loaded.width == net.width
    assert loaded.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert loaded.anchors.keys() == net.anchors.keys()
    assert all(torch.equal(rows, net.anchors[level]) for level, rows in loaded.anchors.items())
    x = torch.randn(1, len(net.modalities), 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(x, net.modalities), net.eval()(x, net.modalities))


def test_describes_itself(saved: Path) -> None:
    assert describe(saved) == {
        "kind": "fedmepd model",
        "format": 1,
        "task": "brats",
        "task_modalities": ["FLAIR", "T1ce", "T1", "T2"],
        "classes": ["background", "NCR/NET", "ED", "ET"],
        "label_maps": {
            "brats": {"0": 0, "1": 1, "2": 2, "4": 3},
            "brats2023": {"0": 0, "1": 1, "2": 2, "3": 3},
            "brats2024": {"0": 0, "1": 1, "2": 2, "3": 3, "4": 0},
            "brats-ped2024": {"0": 0, "1": 3, "2": 1, "3": 1, "4": 2},
            "brats2015": {"0": 0, "1": 1, "2": 2, "3": 1, "4": 3},
            "egd": {"0": 0, "1": 1},
            "msd": {"0": 0, "1": 2, "2": 1, "3": 3},
        },
        "modalities": ["FLAIR", "T2"],
        "width": 4,
        "shared_encoder": False,
        "affine": False,
        "modality_norms": False,
        "calibration": {"residual": True, "dropout": 0.25},
        "about": {
            "owner": "site-2",
            "method": "fedmepd",
            "round": 12,
            "scores": SCORES,
            "clip_percent": 0.0,
            "window": 80,
            "overlap": 0.5,
            "voxel_mm": (),
            "foreground_ml": 0.0,
            "intensities": {},
            "phantoms": None,
            "version": fedmepd.__version__,
        },
    }


WEIGHT = "decoder.levels.2.merge.0.conv.weight"


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        # A model of width 4 that says of itself that it has another.
        ({"width": 8}, ["has shape (4, 4, 1, 1, 1), expected (4, 8, 1, 1, 1) at width 8", "another copy"]),
        ({"state": {WEIGHT: None}}, [f"{WEIGHT} is missing", "another copy"]),
        ({"state": {WEIGHT: torch.zeros(2)}}, [f"{WEIGHT} has shape (2,), expected (8, 16, 3, 3, 3) at width 4"]),
        ({"state": {"decoder.more": torch.zeros(2)}}, ["decoder.more is no weight of a model of width 4", "copy"]),
        ({"modalities": ["FLAIR"]}, ["encoders.T2.", "no weight"]),
        (
            {"format": 2},
            ["has format 2", "reads format 1", f"install the version that wrote it ({fedmepd.__version__})"],
        ),
        ({"format": 2, "about": None}, ["has format 2", "install the version that wrote it (unknown)"]),
        ({"format": None}, ["has format None", "reads format 1"]),
        ({"task": "heart"}, ["unknown task 'heart': expected one of brats, "]),
        ({"task_modalities": ["T1", "FLAIR", "T1ce", "T2"]}, ["modalities T1, FLAIR, T1ce, T2", "with which it was"]),
        ({"task": "brats_post_treatment"}, ["classes background, NCR/NET, ED, ET", "background, NETC, SNFH, ET, RC"]),
        ({"kind": "fedmepd state"}, ["is no fedmepd model"]),
        ({"kind": None, "state_dict": {}}, ["no fedmepd model; import it with `fedmepd checkpoint import`"]),
        ({"task": None}, ["key task is missing", "another copy"]),
        ({"about": None}, ["key about is missing", "another copy"]),
        ({"anchors": None}, ["key anchors is missing", "another copy"]),
    ],
)
def test_faults(change: dict, texts: list[str], saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    for key, value in change.items():
        if key == "state":
            for name, tensor in value.items():
                content["state"].pop(name, None)
                content["state"] |= {} if tensor is None else {name: tensor}
        elif value is None:
            del content[key]
        else:
            content[key] = value
    torch.save(content, saved)
    with pytest.raises(CheckpointError) as error:
        load_model(saved)
    for text in [str(saved), *texts]:
        assert text in str(error.value)


def test_a_model_of_before_there_were_tasks(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    del content["task_modalities"]
    torch.save(content | {"task": "BraTS"}, saved)
    assert load_model(saved).task is BRATS and describe(saved)["task"] == "brats"


@pytest.mark.parametrize("fault", ["absent", "empty", "truncated", "text", "list"])
def test_files_that_cannot_be_read(fault: str, saved: Path) -> None:
    if fault == "absent":
        saved.unlink()
    elif fault == "list":
        torch.save([1], saved)
    else:
        saved.write_bytes({"empty": b"", "truncated": saved.read_bytes()[:-999], "text": b"hello"}[fault])
    with pytest.raises(CheckpointError) as error:
        load_model(saved)
    assert str(saved) in str(error.value) and "\n" not in str(error.value) and "weights_only" not in str(error.value)


def test_what_was_there_stays_when_it_cannot_be_written(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(fedmepd.errors.FedMEPDError, match=f"cannot write {saved}.*free space"):
        save_model(saved, site(), About("site-2", "fedmepd", 13))
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]
