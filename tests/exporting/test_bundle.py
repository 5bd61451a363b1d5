"""A bundle, run by MONAI as its user would, against ``fedmepd predict``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fedmepd.cli import main
from fedmepd.tasks.brats import BRATS
from tests.data.files import save
from tests.segmentation.models import save_tiny
from tests.segmentation.test_segmenter import oblique

NAMES = ("FLAIR", "T1ce")


def head(seed: int) -> np.ndarray:
    """A volume with a brain in it, and negative values around it."""
    random = np.random.default_rng(seed)
    shape = (22, 26, 20)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"), axis=-1)
    brain = (grid**2).sum(axis=-1) < 0.7
    values = random.normal(400, 120, shape).astype("float32") * brain
    values[0, 0, 0] = -3
    return values


@pytest.mark.parametrize("clip_percent", [0.0, 1.0])
def test_same_voxels_as_predict(clip_percent: float, tmp_path: Path) -> None:
    """On a grid of other axes, turned, with voxels of 1 x 2 x 3 mm."""
    model, bundle = tmp_path / "model.pt", tmp_path / "bundle"
    save_tiny(model, clip_percent=clip_percent)
    (tmp_path / "model_card.md").write_text("the card")
    heads = {name: head(number) for number, name in enumerate(("FLAIR", "T1ce"))}
    images = {name: save(tmp_path / f"{name}.nii.gz", values, oblique()) for name, values in heads.items()}
    out = tmp_path / "predicted.nii.gz"
    files = ["--flair", str(images["FLAIR"]), "--t1ce", str(images["T1ce"])]
    how = ["--precision", "float32", "--device", "cpu"]
    assert main(["predict", "--model", str(model), *files, "--out", str(out), *how]) == 0
    assert main(["export", "bundle", "--model", str(model), str(bundle)]) == 0
    run = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(bundle / "configs/inference.json")]
        + ["--bundle_root", str(bundle), "--output_dir", str(tmp_path / "seg"), "--precision", "float32"]
        + [part for name, path in images.items() for part in (f"--{name}", str(path))],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    [written] = (tmp_path / "seg").glob("*_seg.nii.gz")
    found, expected = nibabel.load(written), nibabel.load(out)
    assert found.shape == expected.shape and np.allclose(found.affine, expected.affine, atol=1e-4)
    values = np.asanyarray(expected.dataobj)
    assert len(np.unique(values)) > 1
    assert np.array_equal(np.asanyarray(found.dataobj), values)
    assert (bundle / "docs/model_card.md").read_text() == "the card"


def test_loaded_as_monai_label_does(tmp_path: Path) -> None:
    """It builds ``network_def`` and loads the file's ``model`` into a copy, strictly; a case is one 4-D file."""
    import copy

    import torch
    from monai.bundle import ConfigParser

    net = save_tiny(tmp_path / "model.pt")
    bundle = tmp_path / "bundle"
    assert main(["export", "bundle", "--model", str(tmp_path / "model.pt"), str(bundle)]) == 0
    parser = ConfigParser()
    parser.read_config(bundle / "configs/inference.json")
    network = copy.deepcopy(parser.get_parsed_content("network_def"))
    content = torch.load(bundle / "models/model.pt", weights_only=True)
    network.load_state_dict(content["model"], strict=True)
    x = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(network(x, ("FLAIR", "T1ce")), net(x, ("FLAIR", "T1ce")))
    heads = [head(number) for number in range(2)]
    files = [str(save(tmp_path / f"{number}.nii.gz", values)) for number, values in enumerate(heads)]
    together = str(save(tmp_path / "both.nii.gz", np.stack(heads, axis=-1)))
    prepare = parser.get_parsed_content("preprocessing")
    named, both = {"FLAIR": files[0], "T1ce": files[1]}, {"image": together}
    first, second = (prepare(case)["image"] for case in (named, both))
    assert first.shape[0] == 2 and torch.equal(first.as_tensor(), second.as_tensor())
    for message, case in {
        "1 channel: expected 2, FLAIR, T1ce in this order": {"image": files[0]},
        "expected images resampled to one grid": named | {"T1ce": str(save(tmp_path / "x.nii.gz", heads[0][1:]))},
    }.items():
        with pytest.raises(RuntimeError) as error:
            prepare(case)
        assert message in str(error.value.__cause__)
    # The weights are not stored twice.
    assert (bundle / "models/model.pt").stat().st_size < 1.1 * (tmp_path / "model.pt").stat().st_size


@pytest.mark.parametrize("channels_last", [False, True])
def test_given_in_memory_as_monai_deploy_does(channels_last: bool, tmp_path: Path) -> None:
    """It takes preprocessing, inferer and postprocessing one by one, without what saves, on an image in memory.

    Its operator first asks whether the first transform is one of dictionaries.
    """
    import torch
    from monai.bundle import ConfigParser
    from monai.data import MetaTensor
    from monai.transforms import MapTransform

    save_tiny(tmp_path / "model.pt")
    bundle = tmp_path / "bundle"
    assert main(["export", "bundle", "--model", str(tmp_path / "model.pt"), str(bundle)]) == 0
    parser = ConfigParser()
    parser.read_meta(bundle / "configs/metadata.json")
    parser.read_config(bundle / "configs/inference.json")
    parser.config |= {"precision": "float32"}
    parser.parse()
    network = parser.get_parsed_content("network")
    content = torch.load(bundle / "models/model.pt", weights_only=True)
    network.load_state_dict(content["model"], strict=True)
    prepare, finish = (parser.get_parsed_content(name) for name in ("preprocessing", "postprocessing"))
    assert isinstance(prepare.transforms[0], MapTransform)
    finish.transforms = tuple(step for step in finish.transforms if "SaveImage" not in type(step).__name__)

    heads = [head(number) for number in range(2)]
    stacked = np.stack(heads, axis=-1 if channels_last else 0)
    meta = {"affine": torch.from_numpy(oblique()), "original_channel_dim": -1 if channels_last else 0}
    case = prepare({"image": MetaTensor(torch.from_numpy(stacked), meta=meta)})
    found = parser.get_parsed_content("inferer")(inputs=case["image"][None], network=network)
    [pred] = found
    segmented = finish({"pred": pred} | case)["pred"]

    files = [
        str(save(tmp_path / f"{name}.nii.gz", values, oblique())) for name, values in zip("ab", heads, strict=True)
    ]
    out = tmp_path / "predicted.nii.gz"
    how = ["--precision", "float32", "--device", "cpu"]
    command = ["predict", "--model", str(tmp_path / "model.pt"), "--flair", files[0], "--t1ce", files[1]]
    assert main([*command, "--out", str(out), *how]) == 0
    expected = np.asanyarray(nibabel.load(out).dataobj)
    assert len(np.unique(expected)) > 1 and np.array_equal(segmented[0].numpy(), expected)


def test_metadata_has_what_monai_asks_for(tmp_path: Path) -> None:
    """The keys that MONAI's bundle specification calls mandatory."""
    save_tiny(tmp_path / "model.pt")
    assert main(["export", "bundle", "--model", str(tmp_path / "model.pt"), str(tmp_path / "bundle")]) == 0
    metadata = json.loads((tmp_path / "bundle/configs/metadata.json").read_text())
    needed = {"version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task"}
    needed |= {"description", "authors", "copyright", "network_data_format"}
    assert needed <= set(metadata)
    for kind in ("inputs", "outputs"):
        for content in metadata["network_data_format"][kind].values():
            assert {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data"} <= set(
                content
            )


def test_what_a_bundle_says(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_tiny(tmp_path / "model.pt", ("T1", "T2"))
    licence = tmp_path / "terms.txt"
    licence.write_text("ask us")
    bundle = tmp_path / "bundle"
    command = ["export", "bundle", "--model", str(tmp_path / "model.pt"), str(bundle)]
    assert main([*command, "--licence", str(licence)]) == 0
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    data = metadata["network_data_format"]
    assert data["inputs"]["image"]["channel_def"] == {"0": "T1", "1": "T2"}
    assert data["outputs"]["pred"]["channel_def"]["3"] == "ET" and "fedmepd" in metadata["required_packages_version"]
    # By the values of the label files, as in the pictures of `fedmepd predict`.
    assert metadata["label_colours"] == {"1": BRATS.colours["TC"], "2": BRATS.colours["WT"], "4": BRATS.colours["ET"]}
    assert (bundle / "LICENSE").read_text() == "ask us"
    assert "--T1 t1.nii.gz --T2 t2.nii.gz" in (bundle / "docs/README.md").read_text()
    assert main(command) == 2 and "exists already" in capsys.readouterr().err


def test_a_bundle_warns_before_it_segments(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Of phantoms, of other voxels, of another size of the head, of another modality; export says the first too."""
    from monai.bundle import ConfigParser

    flair = head(0)
    brain = (flair - flair[flair > 0].mean()) / flair[flair > 0].std()
    usual = tuple(float(value) for value in np.percentile(brain[flair > 0], (5, 25, 50, 75)))
    other = tuple(value + 1 for value in usual)
    trained = {"voxel_mm": (1.0, 1.0, 1.0), "foreground_ml": float((flair > 0).sum() / 1000)}
    save_tiny(tmp_path / "model.pt", phantoms=True, intensities={"FLAIR": usual, "T1ce": other}, **trained)
    bundle = tmp_path / "bundle"
    assert main(["export", "bundle", "--model", str(tmp_path / "model.pt"), str(bundle)]) == 0
    assert "warning:" in (said := capsys.readouterr().err) and "trained on phantoms alone" in said
    assert "trained on phantoms alone" in (bundle / "docs/README.md").read_text()
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    assert "trained on phantoms alone" in metadata["intended_use"] and metadata["data_source"] == "phantoms of site-1"
    parser = ConfigParser()
    parser.read_config(bundle / "configs/inference.json")
    prepare = parser.get_parsed_content("preprocessing")

    def warned(affine: np.ndarray) -> list[str]:
        files = {
            name: str(save(tmp_path / f"{name}.nii.gz", head(number), affine)) for number, name in enumerate(NAMES)
        }
        with pytest.warns(UserWarning) as caught:
            prepare(files)
        return [str(each.message) for each in caught if "train" in str(each.message)]

    [phantoms, intensities] = warned(np.eye(4))
    assert "never on a patient" in phantoms and "intensities of T1ce" in intensities
    [_, voxels, size, _] = warned(np.diag([2.0, 2.0, 2.0, 1.0]))
    assert "case FLAIR.nii.gz has voxels of 2 x 2 x 2 mm" in voxels and "FLAIR.nii.gz is above 0 in" in size
