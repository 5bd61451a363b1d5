"""Model files that somebody wrote to do harm: they are refused before memory is taken."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fedmepd.cli.program import main
from fedmepd.errors import CheckpointError
from fedmepd.exporting.bundle import export_bundle
from fedmepd.networks.network import FedMEPDNet
from fedmepd.networks.published import import_published
from fedmepd.storage import load_tensors, save_tensors
from fedmepd.tasks.brats import BRATS
from fedmepd.training.checkpoints import About, describe, load_model, save_model

ROWS = 20_000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = FedMEPDNet(BRATS, ("FLAIR",), 4, calibration={"residual": True, "dropout": 0.1}).start(1)
    network.anchors = {level: torch.ones(3, 4 * 2 ** (level - 1)) for level in (1, 2, 3, 4)}
    save_model(tmp_path / "model.pt", network, About("site-1", "fedmepd", 3))
    return tmp_path / "model.pt"


def change(path: Path, **changes) -> None:
    torch.save(torch.load(path, weights_only=True) | changes, path)


def rows(count: int) -> dict[str, torch.Tensor]:
    return {str(level): torch.zeros(count, 4 * 2 ** (level - 1)) for level in (1, 2, 3, 4)}


ATTACKS = {
    # A network of this width has 1.3e11 weights, half a terabyte.
    "width": ({"width": 4096}, "width = 4096: expected at most 64"),
    "no number": ({"width": "4096"}, "width"),
    "anchors": ({"anchors": rows(ROWS)}, r"shape \(20000, 4\): expected 1 to 256 rows of 4"),
    "large anchors": (
        {"anchors": rows(3) | {"2": torch.full((3, 8), -3e38)}},
        r"of level 2 hold values up to 3e\+38: expected at most 1048576",
    ),
    "levels": ({"anchors": {"1": torch.zeros(3, 4)}}, "levels 1: expected 1, 2, 3, 4"),
    "NaN": ({"anchors": rows(3) | {"2": torch.full((3, 8), torch.nan)}}, "NaN or infinity"),
    "modalities": ({"modalities": ["FLAIR"] * 10_000}, "modalities"),
    "calibration": ({"calibration": {"residual": True, "dropout": 0.1, "heads": 10**9}}, "heads"),
    "dropout": ({"calibration": {"residual": True, "dropout": 5.0}}, "dropout"),
    "state": ({"state": {"a": "text"}}, "state"),
    "sparse anchors": ({"anchors": {level: of.to_sparse() for level, of in rows(3).items()}}, "makes torch.*sparse"),
    "empty anchors": ({"anchors": {level: of.to("meta") for level, of in rows(3).items()}}, "makes torch.*meta"),
    "classes": ({"classes": ["\x1b[2J"] * 4}, "control characters"),
    "no classes": ({"classes": 4}, "classes"),
    "format": ({"format": torch.zeros(2), "about": []}, "format a value of type Tensor"),
    "format of a liar": ({"format": "\x1b[2J", "about": {"version": "\x1b[2J"}}, r"format \\x1b\[2J"),
    "kind": ({"kind": torch.zeros(2)}, "no fedmepd model"),
}


TENSORS = {
    "NaN": (lambda value: torch.full_like(value, torch.nan), "NaN or infinity"),
    "infinity": (lambda value: torch.full_like(value, torch.inf), "NaN or infinity"),
    "whole numbers": (lambda value: value.to(torch.int8), "int8, expected floating-point"),
    "complex numbers": (lambda value: value.to(torch.complex64), "complex64, expected floating-point"),
    "8 bits": (lambda value: value.to(torch.float8_e4m3fn), "makes torch.*_v3"),
    "sparse": (lambda value: value.to_sparse(), "makes torch.*sparse"),
    "no values": (lambda value: value.to("meta"), "makes torch.*meta"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_weights_of_another_kind(name: str, model: Path) -> None:
    """They would end in an error of PyTorch's, in zeros, or in a segmentation that looks like one."""
    make, text = TENSORS[name]
    state = torch.load(model, weights_only=True)["state"]
    key = next(key for key in state if key.startswith("decoder."))
    change(model, state=state | {key: make(state[key])})
    with pytest.raises(CheckpointError, match=f"{key} (is|holds) .*{text}|{text}"):
        load_model(model)


ABOUT = {
    "owner": "site-1\x1b[2J",
    "method": "fed\u202emepd",
    "round": -1,
    "window": 10**9,
    "overlap": 0.999999,
    "clip_percent": float("nan"),
    "scores": {"mdsc": 2.0, "dice": {}},
    "voxel_mm": (1.0,) * 10**6,
    "intensities": {"FLAIR": "x"},
    "phantoms": "no",
    "version": 3,
}


@pytest.mark.parametrize("key", ABOUT)
def test_a_description_that_nobody_could_have_written(key: str, model: Path) -> None:
    about = torch.load(model, weights_only=True)["about"]
    change(model, about=about | {key: ABOUT[key]})
    for read in (describe, load_model):
        with pytest.raises(CheckpointError, match=f"about.{key}") as error:
            read(model)
        assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_model_that_claims_more_than_it_may(name: str, model: Path) -> None:
    changes, text = ATTACKS[name]
    change(model, **changes)
    with pytest.raises(CheckpointError, match=text) as error:
        load_model(model)
    assert str(model) in str(error.value)


class Taken(TorchDispatchMode):
    """Counts the bytes of all tensors that are made in memory."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.device.type == "cpu":
            self.bytes += made.numel() * made.element_size()
        return made


def test_no_memory_is_taken_for_the_network_of_such_a_model(model: Path) -> None:
    """Within the bounds too: the largest network has hundreds of MiB of weights, the file those of the smallest."""
    change(model, width=64)
    with Taken() as taken, pytest.raises(CheckpointError, match="at width 64"):
        load_model(model)
    assert taken.bytes < 50 * 2**20


@pytest.mark.parametrize("command", ["predict", "bundle", "torchscript", "show"])
def test_every_command_refuses_it(command: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    change(model, width=4096)
    images = tmp_path / "patients"
    images.mkdir()
    arguments = {
        "predict": ["predict", "--model", model, images, "--out", tmp_path / "out"],
        "bundle": ["export", "bundle", "--model", model, tmp_path / "out"],
        "torchscript": ["export", "torchscript", "--model", model, tmp_path / "out.ts"],
        "show": ["checkpoint", "show", model],
    }
    assert main([str(argument) for argument in arguments[command]]) == 2
    assert "width = 4096" in capsys.readouterr().err


def test_the_description_alone_is_checked_too(model: Path, tmp_path: Path) -> None:
    change(model, width=4096)
    for read in (describe, lambda path: export_bundle(path, tmp_path / "bundle")):
        with pytest.raises(CheckpointError, match="width = 4096"):
            read(model)


def test_a_file_that_unpacks_to_more_than_it_is(model: Path, tmp_path: Path) -> None:
    """The same archive with its parts packed, and zeros in it that take no room: what torch never writes."""
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(model) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in source.infolist():
            packed.writestr(part.filename, source.read(part))
        packed.writestr("archive/data/999999", bytes(64 * 2**20))
    assert bomb.stat().st_size < 2**22
    with pytest.raises(CheckpointError, match=r"bytes unpack to \d{8}, which torch never writes"):
        load_tensors(bomb)


def test_a_published_checkpoint_that_claims_more_than_it_may(tmp_path: Path) -> None:
    wide = {"state_dict": {"c1_encoder.e1_c1.conv.weight": torch.zeros(4096, 1, 3, 3, 3)}}
    torch.save(wide, tmp_path / "published.pth")
    with pytest.raises(CheckpointError, match="width = 4096"):
        import_published(tmp_path / "published.pth")


HUGE = 2**40
# Values of a few bytes whose copy would take terabytes.
CLAIMS = {
    "tensor": lambda: torch.zeros(1).expand(HUGE),
    "matrix": lambda: torch.zeros(1).expand(4, HUGE),
    "overlapping": lambda: torch.zeros(8).as_strided((4, 4), (1, 1)),
}


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("place", ["top", "state", "anchors", "in a list", "as a key's neighbour"])
def test_a_tensor_that_claims_more_values_than_it_has(name: str, place: str, model: Path) -> None:
    claim = CLAIMS[name]()
    change(
        model,
        **{
            "top": {"more": claim},
            "state": {"state": {"a": claim}},
            "anchors": {"anchors": {"1": claim}},
            "in a list": {"about": [[claim]]},
            "as a key's neighbour": {"about": {"a": ({"b": claim},)}},
        }[place],
    )
    assert model.stat().st_size < 2**21
    for read in (load_tensors, describe, load_model, import_published):
        with pytest.raises(CheckpointError, match=r"holds values of shape .* and fewer of them"):
            read(model)


@pytest.mark.parametrize("name", CLAIMS)
def test_nothing_is_written_that_would_not_be_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="make it contiguous"):
        save_tensors(tmp_path / "state.pt", {"a": [CLAIMS[name]()]})
    assert not list(tmp_path.iterdir())


def test_parts_of_a_tensor_are_written_and_read(tmp_path: Path) -> None:
    """Two of them share their memory, one is transposed."""
    whole = torch.arange(6.0).reshape(2, 3)
    save_tensors(tmp_path / "state.pt", {"a": whole[0], "b": whole[1], "c": whole.T, "d": torch.zeros(0, 4)})
    read = load_tensors(tmp_path / "state.pt")
    assert [read[key].tolist() for key in "abcd"] == [[0, 1, 2], [3, 4, 5], [[0, 3], [1, 4], [2, 5]], []]


STEERING = "\x1b]0;owned\x07\x1b[2J\nINFO forged line"


@pytest.mark.parametrize(
    "changes",
    [
        {"state": {STEERING: torch.zeros(1)}},
        {"anchors": {STEERING: torch.zeros(1, 4)}},
        {"about": {STEERING: 1}},
        {"task": "brats" + STEERING},
        {"calibration": {STEERING: 1}},
    ],
)
def test_names_in_a_model_do_not_reach_the_terminal_as_they_are(changes: dict, model: Path) -> None:
    change(model, **changes)
    with pytest.raises(CheckpointError) as error:
        load_model(model)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("key", ["format", "owner", "version", "scores", "kind"])
@pytest.mark.parametrize("kind", [list, tuple])
def test_values_that_multiply_when_they_are_written_out(key: str, kind: type, model: Path) -> None:
    value = kind(["x"])
    for _ in range(12):
        value = kind([value] * 10)
    about = torch.load(model, weights_only=True)["about"]
    change(model, **({"about": about | {key: value}} if key in about else {key: value}))
    began = time.process_time()
    with pytest.raises(CheckpointError) as error:
        describe(model)
    assert time.process_time() - began < 2 and len(str(error.value)) < 1000


def laughing() -> list:
    """Some hundred bytes in a file, and a terabyte of text when it is written out."""
    value: list = ["x"]
    for _ in range(12):
        value = [value] * 10
    return value


def test_what_else_a_model_holds_is_left_out(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """`checkpoint show` would have written it out, and a bundle would have held it."""
    honest, about = describe(model), torch.load(model, weights_only=True)["about"]
    more = {"more": laughing(), 7: torch.zeros(1), "scores": {"dice": {"WT": 0.5}, "mdsc": 0.5, "more": laughing()}}
    change(model, more=laughing(), about=about | more)
    expected = honest | {"about": honest["about"] | {"scores": {"dice": {"WT": 0.5}, "mdsc": 0.5}}}
    assert describe(model) == expected and list(describe(model)) == list(honest)
    assert main(["checkpoint", "show", str(model)]) == 0
    assert json.loads(capsys.readouterr().out)["about"]["scores"] == {"dice": {"WT": 0.5}, "mdsc": 0.5}
    export_bundle(model, tmp_path / "bundle")
    assert load_model(model).width == load_model(tmp_path / "bundle/models/model.pt").width
    assert "more" not in load_tensors(tmp_path / "bundle/models/model.pt")


def test_an_honest_description_is_told_whole(model: Path) -> None:
    """All that is written but the tensors, as it is written."""
    written = torch.load(model, weights_only=True)
    assert describe(model) == {key: value for key, value in written.items() if key not in ("state", "anchors")}


@pytest.mark.parametrize("value", [laughing(), {"a": laughing()}, {"a\x1b": {}}, {"a": {"1": "x"}}])
def test_label_maps_of_another_kind(value: object, model: Path) -> None:
    change(model, label_maps=value)
    with pytest.raises(CheckpointError, match="label_maps") as error:
        describe(model)
    assert str(error.value).isprintable()
