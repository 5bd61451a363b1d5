import numpy as np
import pytest
import torch

from fedmepd.data.batches import TrainingBatches, evaluation_cases
from fedmepd.data.preparation import PreparedCases
from fedmepd.job_settings import make_settings
from tests.data.files import write_case

SHAPE = (26, 27, 28)


def settings(crop=16, batch=2, seed=0, **augmentation):
    plain = {"tumour_share": 0, "rotation_degrees": 0, "intensity": 0, "flips": False}
    return make_settings(
        "paper", {"seed": seed, "training": {"crop": crop, "batch": batch}, "augmentation": plain | augmentation}
    )


def textured(rng, shape=SHAPE):
    """A brain that fills the volume, every voxel of another value."""
    return (rng.permutation(np.prod(shape)) + 1).reshape(shape).astype("int16")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Three cases with T1 and T2, two with T2 alone; the label marks one voxel of each class."""
    folder, rng, made = tmp_path_factory.mktemp("cases"), np.random.default_rng(0), []
    for name, modalities in zip("abcde", (("T1", "T2"), ("T2",), ("T1", "T2"), ("T2",), ("T1", "T2")), strict=True):
        label = np.zeros(SHAPE, "uint8")
        label[12, 13, 14], label[13, 13, 14], label[14, 13, 14] = 1, 2, 4
        images = {modality: textured(rng) for modality in modalities}
        made.append(write_case(folder, name, (), label=label, **images))
    return made


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def place_of(crop, whole):
    """Returns where ``crop`` (M, X, Y, Z) was cut out of ``whole``: every voxel's value is unique there."""
    corner = (whole[0] == crop[0, 0, 0, 0]).nonzero()
    for start in corner.tolist():
        window = tuple(slice(first, first + side) for first, side in zip(start, crop.shape[1:], strict=True))
        if whole[(slice(None), *window)].shape == crop.shape and torch.equal(whole[(slice(None), *window)], crop):
            return start
    return None


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.label, b.label) and a.cases == b.cases
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize(("batch", "steps"), [(1, 5), (2, 3), (3, 2), (4, 2)])
def test_every_case_once_and_modalities_never_mixed(cases, cache, batch, steps):
    batches = TrainingBatches(cases, settings(batch=batch), ("site-1",), cache)
    assert len(batches) == steps
    orders = set()
    for number in range(6):
        epoch = list(batches.epoch(number))
        assert len(epoch) == steps
        seen = [index for made in epoch for index in made.cases]
        assert sorted(seen) == [0, 1, 2, 3, 4]
        orders.add(tuple(seen))
        for made in epoch:
            assert {cases[index].modalities for index in made.cases} == {made.modalities}
            assert made.images.shape == (len(made.cases), len(made.modalities), 16, 16, 16)
            assert made.images.dtype == torch.float32 and type(made.images) is torch.Tensor
            assert made.label.shape == (len(made.cases), 16, 16, 16) and made.label.dtype == torch.int64
    assert len(orders) > 3


def test_plain_crops_are_pieces_of_the_prepared_case(cases, cache):
    prepared = PreparedCases(cases, cache)
    places = set()
    for number in range(5):
        for made in TrainingBatches(cases, settings(), (), cache).epoch(number):
            for image, label, index in zip(made.images, made.label, made.cases, strict=True):
                whole = torch.cat([prepared[index]["image"].float(), prepared[index]["label"].float()])
                place = place_of(torch.cat([image, label[None].float()]), whole)
                assert place is not None
                places.add(tuple(place))
    # Anywhere: 11 x 12 x 13 places are possible.
    assert len(places) > 15


FULL = {"tumour_share": 0.7, "rotation_degrees": 10, "intensity": 0.1, "flips": True}


def test_an_epoch_depends_on_seed_parts_and_number_alone(cases, cache, tmp_path):
    def epoch(number, seed=0, parts=("site-1", "train"), cache=cache):
        return list(TrainingBatches(cases, settings(seed=seed, **FULL), parts, cache).epoch(number))

    first = epoch(3)
    assert same(first, epoch(3))
    # Read from the files, and read from the cache.
    assert same(first, epoch(3, cache=tmp_path / "cold"))
    # Whatever came before, finished or not.
    batches = TrainingBatches(cases, settings(**FULL), ("site-1", "train"), cache)
    next(batches.epoch(0))
    left, right = zip(*zip(batches.epoch(3), batches.epoch(4), strict=True), strict=True)
    assert same(left, first) and same(right, epoch(4))
    for other in (epoch(4), epoch(3, seed=1), epoch(3, parts=("site-2", "train"))):
        assert not same(first, other)


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 1.0, 1.0), (0.5, 0.25, 0.75)])
def test_tumour_share(cases, cache, share, low, high):
    """A crop of 16 around one of the three tumour voxels has it at place 8; at least 8 voxels lie on every side."""
    batches = TrainingBatches(cases, settings(tumour_share=share), (), cache)
    labels = torch.cat([made.label for number in range(12) for made in batches.epoch(number)])
    centred = (labels[:, 8, 8, 8] > 0).float().mean().item()
    assert low <= centred <= high


def test_flips(cases, cache):
    """With crops as large as the case, eight images of each are possible; the label turns with the image."""
    prepared = PreparedCases(cases[:1], cache)[0]
    expected = torch.cat([prepared["image"].float(), prepared["label"].float()])
    inside = (slice(None), slice(3, 29), slice(2, 29), slice(2, 30))
    seen = set()
    for number in range(60):
        [made] = TrainingBatches(cases[:1], settings(crop=32, batch=1, flips=True), (), cache).epoch(number)
        both = torch.cat([made.images[0], made.label.float()])
        for axes in [(), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)]:
            if torch.equal(both.flip(axes)[inside], expected):
                seen.add(axes)
                break
        else:
            pytest.fail("image and label are no flip of the case")
    assert len(seen) == 8


def test_small_volumes_are_padded_with_nothing(cases, cache):
    [made] = TrainingBatches(cases[:1], settings(crop=32, batch=1), (), cache).epoch(0)
    prepared = PreparedCases(cases[:1], cache)[0]
    assert made.images.shape == (1, 2, 32, 32, 32)
    # 26, 27, 28 in the middle of 32.
    inside = (slice(None), slice(3, 29), slice(2, 29), slice(2, 30))
    assert torch.equal(made.images[0][inside], prepared["image"].float())
    assert torch.equal(made.label[0][inside[1:]], prepared["label"][0].long())
    assert made.images.double().abs().sum() == prepared["image"].double().abs().sum()


def test_intensity_is_scaled_and_shifted_within_bounds(cases, cache):
    prepared = PreparedCases(cases[:1], cache)[0]["image"].float()
    inside = (slice(None), slice(3, 29), slice(2, 29), slice(2, 30))
    scales, shifts = [], []
    for number in range(20):
        [made] = TrainingBatches(cases[:1], settings(crop=32, batch=1, intensity=0.1), (), cache).epoch(number)
        for before, after in zip(prepared, made.images[0][inside], strict=True):
            scale, shift = np.polyfit(before.flatten().double(), after.flatten().double(), 1)
            np.testing.assert_allclose(after, scale * before + shift, atol=1e-5)
            scales.append(scale)
            shifts.append(shift)
    for values, middle in ((scales, 1), (shifts, 0)):
        assert middle - 0.1001 <= min(values) < middle - 0.05 and middle + 0.05 < max(values) <= middle + 0.1001
    # Every modality on its own.
    assert np.abs(np.subtract(scales[::2], scales[1::2])).mean() > 0.02


def test_rotation_turns_image_and_label_alike(tmp_path):
    """The image of a case that shows its label alone still does so after turning."""
    label = np.zeros((24, 24, 24), "uint8")
    label[4:20, 10:14, 10:14] = 2
    image = np.where(label > 0, 300, 100).astype("int16")
    case = write_case(tmp_path, "bar", (), T1=image, label=label)
    turned = 0
    for number in range(5):
        batches = TrainingBatches([case], settings(crop=24, batch=1, rotation_degrees=10), (), tmp_path / "cache")
        [made] = batches.epoch(number)
        assert set(made.label.unique().tolist()) == {0, 2}
        bright = made.images[0, 0] > (made.images.max() + made.images.median()) / 2
        overlap = 2 * (bright & (made.label[0] == 2)).sum() / (bright.sum() + (made.label[0] == 2).sum())
        assert overlap > 0.9
        turned += not torch.equal(made.label[0], torch.as_tensor(label).long())
    assert turned >= 4


def test_evaluation_cases(cases, cache):
    found = list(evaluation_cases(cases[:2], settings(**FULL), cache))
    for case, evaluated, item in zip(cases, found, PreparedCases(cases[:2], cache), strict=False):
        assert evaluated.modalities == case.modalities
        assert evaluated.images.dtype == torch.float32 and torch.equal(evaluated.images[0], item["image"].float())
        assert evaluated.label.dtype == torch.int64 and torch.equal(evaluated.label, item["label"][0].long())
        assert evaluated.spacing == (1.0, 1.0, 1.0)
    assert len(found) == 2


def test_no_cases(tmp_path):
    batches = TrainingBatches([], settings(), (), tmp_path)
    assert len(batches) == 0 and list(batches.epoch(0)) == []
    assert list(evaluation_cases([], settings(), tmp_path)) == []
