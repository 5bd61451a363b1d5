from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from fedmepd.config import EvaluationSettings
from fedmepd.data.cases import Case
from fedmepd.data.own_grid import save_image
from fedmepd.data.preparation import PreparedCases
from fedmepd.errors import DataError, FedMEPDError
from fedmepd.federation.evaluate import score_cases
from fedmepd.segmentation.limits import modality_warnings
from fedmepd.segmentation.outputs import files_beside
from fedmepd.segmentation.segmenter import Segmenter
from fedmepd.tasks.brats import BRATS
from fedmepd.training.inference import class_probabilities
from tests.data.files import save, write_case
from tests.segmentation.models import by_brightness, save_tiny
from tests.tiny import never, settings

INFERENCE = EvaluationSettings(window=24)
CPU = torch.device("cpu")
REAL = Path(__file__).parents[3] / "shared" / "real"


def opened(path: Path, **options) -> Segmenter:
    return Segmenter(path, CPU, window=24, precision="float32", **options)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model.pt")
    return tmp_path / "model.pt"


def oblique() -> np.ndarray:
    """Axes in another order, two of them reversed, turned by 20 degrees, voxels of 1 x 2 x 3 mm."""
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    order = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ order @ np.diag([1.0, 2.0, 3.0])
    affine[:3, 3] = 5, -7, 11
    return affine


@pytest.mark.parametrize(("size", "warned"), [((1, 1, 1), 0), ((1.05, 1, 1), 0), ((1.5, 1, 1), 1), ((5, 1, 1), 1)])
@pytest.mark.parametrize("trained", [(), (1.0, 1.0, 1.0)])
def test_voxels_of_another_size_than_in_training(trained, size, warned, tmp_path: Path) -> None:
    save_tiny(tmp_path / "model.pt", voxel_mm=trained)
    segmenter = opened(tmp_path / "model.pt")
    case = segmenter.usable(write_case(tmp_path, "case", affine=np.diag([*size, 1.0])))
    lines = segmenter.check(case)
    assert len(lines) == (warned if trained else 0)
    assert all("the model was trained with 1 x 1 x 1 mm" in line.text for line in lines)


@pytest.mark.parametrize("affine", [oblique(), np.eye(4), np.diag([-1.0, -1, 1, 1])], ids=["oblique", "RAS", "LPS"])
def test_a_segmentation_stands_where_its_voxels_are(affine: np.ndarray, model: Path, tmp_path: Path) -> None:
    """With a network that calls bright voxels enhancing tumour, it is the bright voxels that are called so."""
    values = np.zeros((9, 10, 11), dtype="int16")
    values[2:8, 1:8, 3:9] = 100
    values[3:5, 2:7, 4:5] = 900
    path = save(tmp_path / "flair.nii.gz", values, affine)
    header = nibabel.load(path)
    header.set_sform(affine, 4)
    header.set_qform(affine, 2)
    nibabel.save(header, path)
    made = opened(model, infer=by_brightness).segment(Case("a", {"FLAIR": path}, None, task=BRATS))
    for name, image, expected in (
        ("labels", made.image("brats"), np.where(values == 900, 4, 0)),
        ("2023", made.image("brats2023"), np.where(values == 900, 3, 0)),
        ("probability", made.probability_image("TC"), np.where(values == 900, 0.75, 0)),
    ):
        save_image(tmp_path / "out" / f"{name}.nii.gz", image)
        found, original = nibabel.load(tmp_path / "out" / f"{name}.nii.gz"), nibabel.load(path)
        assert np.array_equal(found.get_fdata(), expected), name
        assert np.array_equal(found.affine, original.affine)
        for key in ("qform_code", "sform_code", "xyzt_units", "pixdim", "srow_x", "descrip"):
            assert np.array_equal(found.header[key], original.header[key]), (name, key)
    # 10 voxels of the affine's volume, 6 or 1 cubic millimetres.
    millilitres = 10 * abs(np.linalg.det(affine[:3, :3])) / 1000
    assert made.millilitres == pytest.approx({"WT": millilitres, "TC": millilitres, "ET": millilitres})


def test_the_same_as_at_the_end_of_training(tiny, model: Path, tmp_path: Path) -> None:
    """Dice of a site's test cases is the same, to the last bit, as the one that the job reports."""
    from fedmepd.evaluation.metrics import dice_only, summarise

    data = tiny.data("site-1")
    network = save_tiny(tmp_path / "same.pt")
    job = settings(evaluation={"window": 24})
    expected = score_cases(network, data.test[:1], job, tiny.machine.cache / "prepared", distances=False, abort=never)
    segmenter = opened(model)
    scores = []
    for case in data.test[:1]:
        made = segmenter.segment(segmenter.usable(case))
        [item] = PreparedCases([case], tiny.machine.cache / "prepared")
        scores.append(dice_only(BRATS, made.classes, item["label"][0]))
    assert summarise(scores) == expected


def test_clipping_is_that_of_the_model(tmp_path: Path) -> None:
    case = replace(write_case(tmp_path / "data", modalities=("FLAIR",)), label=None)
    for percent in (0.0, 5.0):
        save_tiny(tmp_path / f"{percent}.pt", clip_percent=percent)
        images = opened(tmp_path / f"{percent}.pt", infer=by_brightness).segment(case).images
        expected = PreparedCases([case], tmp_path / "cache", percent)[0]["image"]
        assert np.array_equal(images, expected.float().numpy())
    assert not np.array_equal(images, PreparedCases([case], tmp_path / "cache", 0.0)[0]["image"].float().numpy())


@pytest.mark.parametrize("given", [("FLAIR",), ("T1ce", "T1", "T2")])
def test_any_subset_of_the_modalities(given: tuple[str, ...], model: Path, tmp_path: Path) -> None:
    case = write_case(tmp_path / "data", modalities=given)
    network = save_tiny(tmp_path / "same.pt")
    segmenter = opened(model)
    usable = segmenter.usable(case)
    assert usable.label is None and usable.modalities == tuple(name for name in given if name in ("FLAIR", "T1ce"))
    made = segmenter.segment(usable)
    [item] = PreparedCases([usable], tmp_path / "cache")
    images = item["image"][None].float()
    expected = class_probabilities(network, images, usable.modalities, INFERENCE, "float32")
    assert np.array_equal(made.probabilities, expected.numpy())
    assert np.array_equal(made.classes, expected.argmax(dim=0).numpy())


def test_nothing_that_the_model_knows(model: Path, tmp_path: Path) -> None:
    case = write_case(tmp_path, "p-1", modalities=("T1", "T2"))
    with pytest.raises(DataError, match="case p-1 has T1 T2 only, the model was trained with FLAIR T1ce"):
        opened(model).usable(case)


def test_checks_of_the_files(model: Path, tmp_path: Path) -> None:
    """Errors are raised, warnings returned; the label beside the images does not matter."""
    segmenter = opened(model)
    good = write_case(tmp_path, "good", modalities=("FLAIR", "T1ce"), label=np.full((8, 9, 10), 77, "uint8"))
    assert segmenter.check(segmenter.usable(good)) == []
    head = np.random.default_rng(0).integers(1, 99, (140, 140, 140), "uint8")
    [line] = segmenter.check(segmenter.usable(write_case(tmp_path, "head", modalities=("FLAIR",), FLAIR=head)))
    assert "head" in line.text and "more than a brain: expected co-registered NIfTI images" in line.text
    other = write_case(tmp_path, "other", modalities=("FLAIR",), T1ce=np.ones((8, 9, 11), "int16"))
    with pytest.raises(DataError, match="register and resample"):
        segmenter.check(segmenter.usable(other))
    with pytest.raises(DataError, match="has no image"):
        segmenter.check(segmenter.usable(Case("none", {}, None, task=BRATS)))
    good.images["FLAIR"].unlink()
    with pytest.raises(DataError, match="flair.nii.gz does not exist"):
        segmenter.check(segmenter.usable(good))
    with pytest.raises(DataError, match="case good cannot be read any more"):
        segmenter.segment(segmenter.usable(good))


def test_files_that_vanish_while_it_works(model: Path, tmp_path: Path) -> None:
    case = write_case(tmp_path, "a", modalities=("FLAIR",))
    made = opened(model, infer=by_brightness).segment(case)
    case.images["FLAIR"].unlink()
    with pytest.raises(DataError, match="case a cannot be read any more"):
        made.image("brats")


def test_too_little_memory_on_the_gpu(model: Path, tmp_path: Path) -> None:
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(FedMEPDError, match="case a does not fit .* --device cpu"):
        opened(model, infer=full).segment(write_case(tmp_path, "a", modalities=("FLAIR",)))


def test_clean_up_is_off_unless_asked_for(model: Path, tmp_path: Path) -> None:
    def one_voxel(network, images, *_, **__):
        made = torch.zeros(4, *images.shape[2:])
        made[0] = 0.5
        made[3, 1, 1, 1] = 1
        return made

    case = write_case(tmp_path, "a", modalities=("FLAIR",))
    assert opened(model, infer=one_voxel).segment(case).classes[1, 1, 1] == 3
    assert opened(model, infer=one_voxel, min_enhancing_ml=0.5).segment(case).classes[1, 1, 1] == 1
    made = opened(model, infer=one_voxel, min_component_ml=0.5).segment(case)
    assert not made.classes.any() and made.probabilities[3, 1, 1, 1] == 1


def case_of(*modalities: str) -> Case:
    return Case("secret", {name: Path(name) for name in modalities}, None, task=BRATS)


def test_differences_from_the_model_are_named() -> None:
    model = ("FLAIR", "T1ce", "T1")
    assert modality_warnings(BRATS, [case_of("FLAIR", "T1ce", "T1")], model) == []
    assert modality_warnings(BRATS, [case_of("FLAIR", "T2")], model) == [
        "the model was trained with FLAIR T1ce T1; T1ce T1 are missing: expect a less accurate segmentation",
        "the model was trained with FLAIR T1ce T1; T2 cannot be used and is ignored",
    ]
    cases = [case_of("FLAIR", "T1ce", "T1"), case_of("FLAIR", "T1ce"), case_of("FLAIR", "T1ce"), case_of("T2")]
    assert modality_warnings(BRATS, cases, model) == [
        "the model was trained with FLAIR T1ce T1; T1 is missing in 2 of 4 cases: expect a less accurate segmentation",
        "the model was trained with FLAIR T1ce T1; T2 in 1 of 4 cases cannot be used and is ignored",
    ]


@pytest.mark.parametrize(
    ("said", "options", "expected"),
    [
        ({"window": 40, "overlap": 0.25}, {}, (40, 0.25)),
        ({"window": 40, "overlap": 0.25}, {"window": 24, "overlap": 0.0}, (24, 0.0)),
        # Written before models said so.
        (None, {}, (80, 0.5)),
    ],
)
def test_window_is_that_of_the_models_job(
    said: dict | None, options: dict, expected: tuple, model: Path, tmp_path: Path
) -> None:
    content = torch.load(model, weights_only=True)
    for key in ("window", "overlap"):
        del content["about"][key]
    content["about"] |= said or {}
    torch.save(content, model)
    seen = []

    def spy(network, images, modalities, inference, *_, **__):
        seen.append((inference.window, inference.overlap))
        return by_brightness(network, images)

    case = write_case(tmp_path, modalities=("FLAIR",))
    segmenter = Segmenter(model, CPU, infer=spy, **options)
    segmenter.segment(segmenter.usable(case))
    assert seen == [expected]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real cases in {REAL}")
def test_real_cases_come_back_into_their_grid(model: Path, tmp_path: Path) -> None:
    flair = REAL / "TCGA-DU-7294" / "fla.nii.gz"
    segmenter = opened(model, infer=by_brightness)
    case = Case("s", {"FLAIR": flair}, None, task=BRATS)
    assert segmenter.check(case) == []
    files, _ = files_beside(BRATS, tmp_path / "s.nii.gz", overlay=True, probabilities=False)
    files.write(segmenter.segment(case), "brats")
    found, original = nibabel.load(tmp_path / "s.nii.gz"), nibabel.load(flair)
    assert np.array_equal(found.affine, original.affine) and found.shape == (240, 240, 155)
    values = original.get_fdata()
    # A threshold of the z-score is one of the intensity.
    called = found.get_fdata() == 4
    assert called.any() and values[called].min() >= values[(values > 0) & ~called].max()
