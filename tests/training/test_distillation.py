"""The terms of self-distillation against loops over voxels, and against cases whose result is known."""

from __future__ import annotations

import math

import pytest
import torch

from fedmepd.training.distillation import class_means, divergence, map_differences, similarity_maps

CLASSES, CHANNELS, SIDE = 4, 3, 2


def probabilities(seed: int) -> torch.Tensor:
    return torch.randn(2, CLASSES, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)


def test_divergence_voxel_by_voxel() -> None:
    student, teacher = probabilities(0), probabilities(1)
    total = 0.0
    for of_student, of_teacher in zip(
        student.flatten(2).transpose(1, 2).reshape(-1, CLASSES),
        teacher.flatten(2).transpose(1, 2).reshape(-1, CLASSES),
        strict=True,
    ):
        q = [float(p) ** (1 / 4) for p in of_student]
        p = [float(p) ** (1 / 4) for p in of_teacher]
        q, p = [x / sum(q) for x in q], [x / sum(p) for x in p]
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    voxels = 2 * SIDE**3
    assert float(divergence(student, teacher, 4.0)) == pytest.approx(16 * total / voxels, rel=1e-4)
    assert float(divergence(student, student, 4.0)) == pytest.approx(0, abs=1e-6)


def test_only_the_student_learns() -> None:
    student, teacher = probabilities(0).requires_grad_(), probabilities(1).requires_grad_()
    divergence(student, teacher, 4.0).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


def test_certain_probabilities_stay_finite() -> None:
    certain = torch.zeros(1, CLASSES, 1, 1, 1)
    certain[:, 0] = 1
    student = certain.flip(1).clone().requires_grad_()
    value = divergence(student, certain, 1.0)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all() and float(value.detach()) > 10


def test_class_means_and_maps_voxel_by_voxel() -> None:
    generator = torch.Generator().manual_seed(2)
    feature = torch.randn(2, CHANNELS, SIDE, SIDE, SIDE, generator=generator)
    label = torch.randint(0, 3, (2, SIDE, SIDE, SIDE), generator=generator)
    means, there = class_means(feature, label, CLASSES)
    maps = similarity_maps(feature, means)
    for sample in range(2):
        for number in range(CLASSES):
            inside = label[sample] == number
            assert bool(there[sample, number]) == bool(inside.any())
            if not inside.any():
                continue
            mean = feature[sample][:, inside].mean(dim=1)
            torch.testing.assert_close(means[sample, number], mean)
            for voxel, place in enumerate(torch.cartesian_prod(*[torch.arange(SIDE)] * 3).tolist()):
                at = feature[sample][:, place[0], place[1], place[2]]
                cosine = float(at @ mean / at.norm() / mean.norm())
                assert float(maps[sample, number, voxel]) == pytest.approx(cosine, abs=1e-5)
    assert not there[:, 3].any()


def test_differences_are_of_classes_that_are_there() -> None:
    maps = torch.tensor([[[1.0, 0.0], [9.0, 9.0]]])
    squared, absolute = map_differences(maps, torch.zeros(1, 2, 2), torch.tensor([[True, False]]))
    assert (float(squared), float(absolute)) == (0.5, 0.5)
    nothing = map_differences(maps, torch.zeros(1, 2, 2), torch.tensor([[False, False]]))
    assert [float(value) for value in nothing] == [0, 0]
