from __future__ import annotations

import pytest
import torch

from fedmepd.data.batches import Batch
from fedmepd.errors import Aborted, FedMEPDError
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS
from fedmepd.training.epoch import EpochReport, class_vectors, learning_rate, make_optimizer, train_epoch
from fedmepd.training.losses import training_loss
from tests.networks import oracle
from tests.networks.ours import network
from tests.tiny import never, settings


@pytest.mark.parametrize(
    ("rounds", "round_number", "expected"),
    [
        # lr * (1 - round / (rounds + 1))^0.9: rounds 0 to 9 of a job of 9 rounds are ten.
        (9, 0, 2e-4),
        (9, 5, 2e-4 * 0.5**0.9),
        (9, 9, 2e-4 * 0.1**0.9),
        (1000, 1000, 2e-4 * (1 / 1001) ** 0.9),
    ],
)
def test_learning_rate(rounds: int, round_number: int, expected: float) -> None:
    of = settings(rounds=rounds, training={"learning_rate": 2e-4})
    assert learning_rate(of, round_number) == pytest.approx(expected)


def batches(count: int, size: int = 2) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(
            torch.randn(size, 3, 16, 16, 16, generator=generator),
            ("FLAIR", "T1ce", "T2"),
            torch.randint(4, (size, 16, 16, 16), generator=generator),
            tuple(range(number * size, (number + 1) * size)),
        )
        for number in range(count)
    ]


def weights(net: FedMEPDNet) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in net.named_parameters()}


def test_a_step_is_adams() -> None:
    """The first step of Adam moves every weight by lr * g / (|g| + 1e-8), g with the decay's share."""
    of = settings(training={"learning_rate": 0.01, "weight_decay": 0.1})
    net = FedMEPDNet(BRATS, width=4).start(0)
    before = weights(net)
    [batch] = batches(1)
    outputs = net.train().training_outputs(batch.images, batch.modalities)
    training_loss(outputs, batch.label).total.backward()
    gradients = {key: value.grad.clone() for key, value in net.named_parameters() if value.grad is not None}
    report = EpochReport()
    train_epoch(net, make_optimizer(net, of.training), [batch], report, precision="float32", abort=never)
    assert not any(key.startswith("encoders.T1.") for key in gradients)
    for key, value in net.named_parameters():
        if key in gradients:
            gradient = gradients[key] + 0.1 * before[key]
            expected = before[key] - 0.01 * gradient / (gradient.abs() + 1e-8)
            clear = gradient.abs() > 1e-4
            torch.testing.assert_close(value[clear], expected[clear], rtol=0, atol=2e-5)
        else:
            assert torch.equal(value, before[key]), key


def test_report_holds_means_over_the_steps() -> None:
    """The totals of two steps, without learning, against the oracle's on a state of the same weights."""
    state = oracle.random_state(4)
    net = network(state, None)
    report, steps = EpochReport(), []
    of = settings(training={"learning_rate": 1e-12})
    two = batches(2)
    train_epoch(
        net,
        make_optimizer(net, of.training),
        two,
        report,
        precision="float32",
        abort=never,
        progress=lambda step, loss: steps.append((step, loss)),
    )
    totals, finals = [], []
    for batch in two:
        x = torch.stack([batch.images[:, 0], batch.images[:, 1], 0 * batch.images[:, 0], batch.images[:, 2]], dim=1)
        outputs = oracle.forward(state, x, [True, True, False, True])
        total, parts = oracle.training_loss(outputs, batch.label)
        totals.append(total.item())
        finals.append(sum(parts["final"]).item())
    assert steps == [(1, pytest.approx(totals[0], rel=1e-4)), (2, pytest.approx(totals[1], rel=1e-4))]
    means = report.means()
    assert report.steps == 2 and means.keys() == {"total", "segmentation", "regions", "auxiliary"}
    assert means["total"] == pytest.approx(sum(totals) / 2, rel=1e-4)
    assert means["segmentation"] == pytest.approx(sum(finals) / 2, rel=1e-4)
    assert means["total"] == pytest.approx(means["segmentation"] + means["regions"] + means["auxiliary"])


def test_abort_between_two_steps() -> None:
    net = FedMEPDNet(BRATS, width=4).start(0)
    steps: list[int] = []
    with pytest.raises(Aborted):
        train_epoch(
            net,
            make_optimizer(net, settings().training),
            batches(3),
            EpochReport(),
            precision="float32",
            abort=lambda: len(steps) == 2,
            progress=lambda step, loss: steps.append(step),
        )
    assert steps == [1, 2]


def test_a_loss_that_is_no_number_ends_the_training_before_it_spoils_the_weights() -> None:
    net = FedMEPDNet(BRATS, width=4).start(0)
    before = weights(net)
    [batch] = batches(1)
    batch.images[0, 0, 0, 0, 0] = float("nan")
    optimizer = make_optimizer(net, settings().training)
    with pytest.raises(FedMEPDError, match="loss is nan in step 1: expected a finite number; lower training"):
        train_epoch(net, optimizer, [batch], EpochReport(), precision="float32", abort=never)
    assert all(torch.equal(value, before[key]) for key, value in net.named_parameters())


def test_choosing_modalities_takes_their_images() -> None:
    net = FedMEPDNet(BRATS, width=4).start(0)
    seen = []
    net.encoders["T2"].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    net.encoders["FLAIR"].register_forward_hook(lambda *_: pytest.fail("FLAIR was left out"))
    [batch] = batches(1)
    train_epoch(
        net,
        make_optimizer(net, settings().training),
        [batch],
        EpochReport(),
        precision="float32",
        abort=never,
        choose_modalities=lambda modalities: modalities[1:],
    )
    assert len(seen) == 1 and torch.equal(seen[0], batch.images[:, 2:])


def test_class_vectors() -> None:
    """Against nearest upsampling, voxel by voxel; the second sample has no class 2, and one voxel of class 3."""
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(4, (2, 16, 8, 24), generator=generator)
    label[1][label[1] >= 2] = 0
    label[1, 5, 2, 17] = 3
    features = {
        level: torch.randn(2, 3 + level, *(side // 2 ** (level - 1) for side in (16, 8, 24)), generator=generator)
        for level in (1, 2, 3, 4)
    }
    vectors, there = class_vectors(features, label, 4)
    assert there.tolist() == [[True] * 4, [True, True, False, True]]
    for level, feature in features.items():
        factor = 2 ** (level - 1)
        large = feature
        for axis in (2, 3, 4):
            large = large.repeat_interleave(factor, dim=axis)
        assert vectors[level].shape == (2, 4, 3 + level)
        for sample in range(2):
            for k in range(4):
                inside = large[sample][:, label[sample] == k]
                expected = inside.mean(dim=1) if there[sample, k] else torch.zeros(3 + level)
                torch.testing.assert_close(vectors[level][sample, k], expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_gradients_point_where_those_of_float32_do() -> None:
    """At the smallest crop that may train in bfloat16, and with one sample, where PyTorch's gradients were wrong."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(1, 2, 24, 24, 24, generator=generator)
    label = torch.randint(4, (1, 24, 24, 24), generator=generator)
    net = FedMEPDNet(BRATS, ("FLAIR", "T2"), width=4).start(0)
    gradients = {}
    for dtype in (torch.float32, torch.bfloat16):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            outputs = net.training_outputs(images, ("FLAIR", "T2"))
        training_loss(outputs, label).total.backward()
        gradients[dtype] = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    exact, fast = gradients[torch.float32], gradients[torch.bfloat16]
    # Eight bits of mantissa turn the gradient of noise by some degrees; unwritten memory turns it anywhere.
    assert torch.cosine_similarity(fast, exact, dim=0) > 0.9
    assert fast.norm() == pytest.approx(float(exact.norm()), rel=0.1)
