from __future__ import annotations

import pytest
import torch

from benchmarks.heads import Head, batch, bounding_box, brain_for, head, in_volume, normalised


def test_sizes_beside_a_crop() -> None:
    assert brain_for(80) == (140, 175, 140)
    assert brain_for(16) == (28, 35, 28)


def test_head_fills_its_box() -> None:
    size = (28, 35, 30)
    made = head(0, size)
    assert made.images.shape == (4, *size) and made.label.shape == size
    brain = (made.images != 0).any(dim=0)
    # Resampled from 48 voxels a side, the outermost plane may have lost the brain.
    for axis, side in zip(bounding_box(brain), size, strict=True):
        assert axis.start <= 1 and axis.stop >= side - 1
    inside = made.images[:, brain]
    torch.testing.assert_close(inside.mean(dim=1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(inside.std(dim=1), torch.ones(4), atol=1e-3, rtol=0)
    assert set(made.label.unique().tolist()) == {0, 1, 2, 3} and not made.label[~brain].any()
    # Oedema is bright in FLAIR, the enhancing rim in T1ce (channels 0 and 1).
    for channel, number in ((0, 2), (1, 3)):
        image = made.images[channel]
        assert image[made.label == number].mean() > image[brain & (made.label == 0)].mean() + 0.5
    assert not torch.equal(head(1, size).label, made.label)


def test_normalised_by_hand() -> None:
    images = torch.tensor([1.0, 3.0, 7.0]).view(1, 3, 1, 1)
    brain = torch.tensor([True, True, False]).view(3, 1, 1)
    # Mean 2, standard deviation (of a sample) the square root of 2.
    expected = torch.tensor([-(0.5**0.5), 0.5**0.5, 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalised(images, brain), expected)


def numbered() -> Head:
    images = torch.arange(4 * 6 * 7 * 8).view(4, 6, 7, 8).float()
    label = torch.zeros(6, 7, 8, dtype=torch.int64)
    label[5, 0, 3] = 2
    return Head(images, label)


def test_in_the_middle_of_a_volume() -> None:
    made = in_volume(numbered(), (10, 7, 11))
    torch.testing.assert_close(made.images[:, 2:8, :, 1:9], numbered().images)
    assert made.label[7, 0, 4] == 2 and made.label.sum() == 2
    assert made.images.count_nonzero() == numbered().images.count_nonzero()


@pytest.mark.parametrize("seed", [0, 1])
def test_crops_hold_tumour_and_stay_inside(seed: int) -> None:
    made = batch([numbered()], ("FLAIR", "T1"), 4, 2, seed)
    assert (made.modalities, made.cases) == (("FLAIR", "T1"), (0, 0))
    # Around voxel (5, 0, 3), moved inside: 2-5, 0-3, 1-4; channels 0 and 2.
    expected = numbered().images[[0, 2], 2:6, 0:4, 1:5]
    for crop, label in zip(made.images, made.label, strict=True):
        torch.testing.assert_close(crop, expected)
        assert label.nonzero().tolist() == [[3, 0, 2]]
