from __future__ import annotations

import pytest
import torch

from benchmarks.task import Task
from benchmarks.ways import PRODUCT, STRAIGHTFORWARD, WAYS, Recorded, Way
from fedmepd.networks.kernels import portable
from tests.networks import oracle

TASK = Task(("FLAIR", "T2"), width=4, crop=16, precision="float32", dropout=0.0)


@pytest.fixture(scope="module")
def batch():
    [made] = TASK.batches(1)
    return made


@pytest.mark.parametrize(
    "way", [way for way in WAYS if not way.compiled and not way.recorded], ids=lambda way: way.name
)
def test_every_way_has_the_same_loss(way: Way, batch) -> None:
    with way.surroundings():
        first, second = (trainer.step(batch) for trainer in [way.trainer(TASK)] for _ in range(2))
    weights, anchors = TASK.weights(), TASK.anchors()
    images = torch.zeros(1, 4, 16, 16, 16)
    images[:, [0, 3]] = batch.images
    outputs = oracle.forward(weights, images, [True, False, False, True], anchors)
    expected = oracle.training_loss(outputs, batch.label)[0].item()
    assert first == pytest.approx(expected, rel=1e-5) and second < first


def test_the_memory_formats_differ() -> None:
    last = {"memory_format": torch.channels_last_3d}
    plain, own = (way.trainer(TASK).network for way in (Way("plain", plain=True), PRODUCT))
    first = [network.decoder.levels["1"].merge[0].conv.weight for network in (plain, own)]
    assert [weight.is_contiguous(**last) for weight in first] == [False, True]
    seen = []

    def forward(weights, images, *rest):
        seen.append((images.is_contiguous(**last), weights["c1_encoder.e1_c2.conv.weight"].is_contiguous(**last)))
        raise StopIteration

    for way in (STRAIGHTFORWARD, Way("last", product=False, channels_last=True)):
        side = TASK.straightforward(way.forward(TASK, forward))
        with pytest.raises(StopIteration):
            side.step(next(TASK.batches(1)))
    assert seen == [(False, False), (True, True)]


def test_plain_operations_and_dropout() -> None:
    assert not portable.is_exported()
    with Way("plain", plain=True).surroundings():
        assert portable.is_exported()
    assert not portable.is_exported()
    task = Task(("T2",), width=4, crop=16, dropout=0.5)
    assert PRODUCT.trainer(task).network.calibration["1"].dropout == 0.5
    assert Way("none", dropout=False).trainer(task).network.calibration["1"].dropout == 0


def test_straightforward_in_bfloat16() -> None:
    """As autocast makes it: the convolutions' results, not the weights."""
    seen = []

    def forward(weights, images, *rest):
        first = torch.nn.functional.conv3d(images[:, :1], weights["c1_encoder.e1_c1.conv.weight"])
        seen.append((first.dtype, images.dtype))
        raise StopIteration

    for precision in ("float32", "bfloat16"):
        task = Task(("T2",), width=4, crop=24, precision=precision)
        with pytest.raises(StopIteration):
            task.straightforward(STRAIGHTFORWARD.forward(task, forward)).step(next(task.batches(1)))
    assert seen == [(torch.float32, torch.float32), (torch.bfloat16, torch.float32)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_graph_needs_a_gpu(batch) -> None:
    trainer = Way("graph", recorded=True).trainer(TASK)
    assert isinstance(trainer, Recorded)
    with pytest.raises(RuntimeError, match="need a GPU"):
        trainer.step(batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_trains_as_the_product_does(batch) -> None:
    task = Task(TASK.modalities, width=4, crop=16, precision="float32", dropout=0.0, device="cuda")
    graph, product = Way("graph", recorded=True).trainer(task), PRODUCT.trainer(task)
    expected = [product.step(batch) for _ in range(5)]
    found = [graph.step(batch) for _ in range(3)]
    # The first call trains three steps and records.
    assert found == pytest.approx([expected[0], *expected[3:]], rel=1e-3)
