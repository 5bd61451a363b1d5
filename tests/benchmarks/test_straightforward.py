from __future__ import annotations

import torch

from benchmarks.straightforward import all_channels, predict
from benchmarks.task import Task
from tests.networks import oracle


def test_absent_modalities_are_zero() -> None:
    images = torch.tensor([5.0, 6.0]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 1, 2)
    found = all_channels(images, [False, True, False, True])
    assert found[..., 0].flatten().tolist() == found[..., 1].flatten().tolist() == [0, 5, 0, 6]


def test_a_step_is_adams_on_the_oracles_loss() -> None:
    task = Task(("T1ce", "T2"), width=4, crop=16)
    [batch] = task.batches(1)
    side = task.straightforward()
    weights = {name: value.requires_grad_() for name, value in task.weights().items()}
    x = torch.zeros(1, 4, 16, 16, 16)
    x[:, 1], x[:, 3] = batch.images[:, 0], batch.images[:, 1]
    outputs = oracle.forward(weights, x, [False, True, False, True], task.anchors())
    loss, _ = oracle.training_loss(outputs, batch.label)
    loss.backward()
    assert side.step(batch, keep=True) == loss.item()
    assert torch.equal(side.segmentation, outputs.segmentation)
    # Adam's first step is the learning rate (2e-4) long, against the gradient, where that is not tiny.
    name = "decoder_fuse.d1_out.conv.weight"
    gradient, before = weights[name].grad, weights[name].detach()
    clear = gradient.abs() > 1e-4
    moved = (side.weights[name].detach() - before)[clear]
    assert clear.any()
    torch.testing.assert_close(moved, -2e-4 * gradient[clear].sign(), rtol=0.01, atol=0)


def test_both_sides_have_the_same_gradients_by_name() -> None:
    task = Task(("T1",), width=4, crop=16)
    [batch] = task.batches(1)
    plain, product = task.straightforward(), task.product()
    plain.step(batch)
    product.step(batch)
    first, second = plain.gradients(), product.gradients()
    assert first.keys() >= second.keys()
    assert {name for name in first if name.startswith("encoders.FLAIR")}
    for name, gradient in second.items():
        assert gradient.shape == first[name].shape, name


def test_segmentation_of_one_window_and_of_two() -> None:
    """Along an axis of 24, windows of 16 that overlap by half start at 0 and 8, and are averaged where both are."""
    task = Task(("FLAIR", "T2"), width=4, crop=16, seed=3)
    weights, anchors = task.weights(), task.anchors()
    images = torch.randn(1, 2, 24, 16, 16, generator=torch.Generator().manual_seed(0))
    total, count = torch.zeros(1, 4, 24, 16, 16), torch.zeros(24, 1, 1)
    mask = [True, False, False, True]
    for start in (0, 8):
        x = torch.zeros(1, 4, 16, 16, 16)
        x[:, [0, 3]] = images[:, :, start : start + 16]
        with torch.no_grad():
            total[:, :, start : start + 16] += oracle.forward(weights, x, mask, anchors, True).segmentation
        count[start : start + 16] += 1
    expected = (total / count).argmax(dim=1)[0]
    found = predict(weights, images, ("FLAIR", "T2"), anchors, True, window=16, overlap=0.5)
    # Two probabilities may be the same to the last bits.
    assert (found != expected).float().mean() < 1e-3
    assert len(expected.unique()) > 1
