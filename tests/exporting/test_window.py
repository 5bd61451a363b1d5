"""Exported networks against the model, in runtimes of their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from fedmepd.cli import main
from fedmepd.exporting import window as module
from tests.segmentation.models import save_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_tiny(path)
    return path


def expected(model: Path, image: torch.Tensor) -> torch.Tensor:
    from fedmepd import load_model

    with torch.no_grad():
        return load_model(model)(image, ("FLAIR", "T1ce"))


def check_about(about: dict) -> None:
    assert about["channels"] == ["FLAIR", "T1ce"] and about["window"] == 16 and about["labels"] == [0, 1, 2, 4]
    assert about["classes"][0] == "background" and about["owner"] == "site-1"


def test_torchscript(model, tmp_path, capsys) -> None:
    out = tmp_path / "model.ts"
    assert main(["export", "torchscript", "--model", str(model), str(out), "--window", "16"]) == 0
    model_line, does, written = capsys.readouterr().out.splitlines()
    assert model_line.startswith(f"{model}: model of site-1, ") and model_line.endswith(", from FLAIR T1ce")
    assert does == "tracing the network for one window of 16 voxels, then comparing both on random images"
    assert "probabilities differ from the model's by at most" in written
    extra = {"fedmepd.json": ""}
    loaded = torch.jit.load(str(out), _extra_files=extra)
    image = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(loaded(image), expected(model, image), rtol=0, atol=1e-4)
    check_about(json.loads(extra["fedmepd.json"]))


def test_onnx(model, tmp_path) -> None:
    import onnxruntime as runtime

    out = tmp_path / "model.onnx"
    assert main(["export", "onnx", "--model", str(model), str(out), "--window", "16"]) == 0
    session = runtime.InferenceSession(str(out))
    image = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    [found] = session.run(["probabilities"], {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected(model, image), rtol=0, atol=1e-4)
    properties = session.get_modelmeta().custom_metadata_map
    check_about({key: json.loads(value) for key, value in properties.items()})


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_a_file_that_is_there_is_kept(model, tmp_path, capsys, kind) -> None:
    for out in (model, tmp_path / "other"):
        before = out.write_bytes(b"precious") if out != model else out.stat().st_size
        assert main(["export", kind, "--model", str(model), str(out), "--window", "16"]) == 2
        assert f"{out} exists already: choose another name" in capsys.readouterr().err
        assert out.stat().st_size == before


def test_a_network_that_differs_is_not_written(model, tmp_path, monkeypatch, capsys) -> None:
    real = torch.jit.load

    def damaged(*arguments):
        loaded = real(*arguments)
        return lambda image: loaded(image) + 0.01

    monkeypatch.setattr(module.torch.jit, "load", damaged)
    out = tmp_path / "model.ts"
    assert main(["export", "torchscript", "--model", str(model), str(out), "--window", "16"]) == 2
    assert "differs from the model by 0.01" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(("side", "kind"), [("20", "torchscript"), ("8", "torchscript")])
def test_window_that_the_network_would_have_to_pad(side, kind, model, tmp_path, capsys) -> None:
    assert main(["export", kind, "--model", str(model), str(tmp_path / "x"), "--window", side]) == 2
    assert f"--window {side}: expected a multiple of 8" in capsys.readouterr().err


def test_onnx_is_not_installed(model, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "onnx", "--model", str(model), str(tmp_path / "x")]) == 2
    assert "the package onnx is not installed: `pip install onnx" in capsys.readouterr().err
