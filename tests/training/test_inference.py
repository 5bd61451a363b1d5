from __future__ import annotations

import itertools

import pytest
import torch

from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS
from fedmepd.training.inference import class_probabilities, most_probable, predict
from tests.networks.oracle import forward, random_state
from tests.networks.ours import network
from tests.tiny import settings


def image(*size: int) -> torch.Tensor:
    return torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("size", "window"), [((16, 24, 16), 48), ((16, 16, 16), 16), ((13, 21, 9), 24)])
def test_one_window_is_the_whole_volume(size: tuple[int, ...], window: int) -> None:
    """However large the window, the network sees the volume itself, padded to multiples of 8 and at least 16."""
    state = random_state(4)
    net = network(state, None).train()
    padded = torch.zeros(1, 4, *(max(16, (side + 7) // 8 * 8) for side in size))
    padded[:, :, : size[0], : size[1], : size[2]] = image(*size)
    with torch.no_grad():
        expected = forward(state, padded, [True] * 4).segmentation[0, :, : size[0], : size[1], : size[2]].argmax(0)
    sections = settings(evaluation={"window": window})
    found = predict(net, image(*size), net.modalities, sections.evaluation, "float32")
    assert found.dtype == torch.int64 and found.shape == size
    # Two probabilities may be the same to the last bits.
    assert (found != expected).float().mean() < 1e-3


def test_windows_overlap_and_are_averaged() -> None:
    """Along an axis of 32, windows of 16 that overlap by half start at 0, 8 and 16."""
    net = FedMEPDNet(BRATS, ("T1",), 4).start(0)
    x = image(32, 16, 16)[:, :1]
    total = torch.zeros(1, 4, 32, 16, 16)
    count = torch.zeros(32, 1, 1)
    net.eval()
    with torch.no_grad():
        for start in (0, 8, 16):
            total[:, :, start : start + 16] += net(x[:, :, start : start + 16], ("T1",))
            count[start : start + 16] += 1
    expected = (total / count).argmax(dim=1)[0]
    assert len(expected.unique()) > 1
    found = predict(net.train(), x, ("T1",), settings(evaluation={"window": 16, "overlap": 0.5}).evaluation, "float32")
    assert (found != expected).float().mean() < 1e-3


def test_windows_without_brain_are_background_and_cost_nothing() -> None:
    """Along an axis of 48, windows of 16 start at 0, 8, ..., 32; brain from voxel 30 on is seen by the last three."""
    net = FedMEPDNet(BRATS, ("T1",), 4).start(0)
    x = image(48, 16, 16)[:, :1]
    x[:, :, :30] = 0
    # Without brain the network itself would say anything, but not background everywhere.
    with torch.no_grad():
        net.decoder.classify.bias.copy_(torch.tensor([-9.0, 0.0, 0.0, 0.0]))
    seen = []
    net.encoders["T1"].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    found = predict(net, x, ("T1",), settings(evaluation={"window": 16, "overlap": 0.5}).evaluation, "float32")
    assert len(seen) == 3 and all(window.any() for window in seen)
    assert not found[:16].any() and (found[24:] > 0).all()


def test_of_two_equal_probabilities_the_first_class_is_taken() -> None:
    probabilities = torch.tensor([[0.4, 0.2, 0.1], [0.2, 0.4, 0.1], [0.4, 0.4, 0.8]]).view(3, 3, 1, 1)
    assert most_probable(probabilities).flatten().tolist() == [0, 1, 2]


def test_evaluation_mode_and_no_gradients() -> None:
    net = FedMEPDNet(BRATS, width=4, calibration={"dropout": 0.5}).start(0)
    net.anchors = {level: torch.randn(4, 4 * 2 ** (level - 1)) for level in (1, 2, 3, 4)}
    section = settings(evaluation={"window": 16}).evaluation
    maps = [predict(net.train(), image(16, 16, 16), net.modalities, section, "float32") for _ in range(2)]
    assert torch.equal(*maps) and not net.training
    assert all(parameter.grad is None for parameter in net.parameters())


def test_number_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """48 voxels in windows of 24 with an overlap of half are three; shorter axes are one, of their own length."""
    net = FedMEPDNet(BRATS, ("T1",), 4).start(0)
    shapes = []
    net.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[2:])))
    predict(net, image(48, 20, 9)[:, :1], ("T1",), settings(evaluation={"window": 24}).evaluation, "float32")
    assert shapes == list(itertools.repeat((24, 20, 9), 3))


def test_flips_average_the_eight_mirror_images() -> None:
    net = FedMEPDNet(BRATS, ("T1",), 4).start(0).eval()
    x = image(16, 16, 24)[:, :1]
    expected = torch.zeros(4, 16, 16, 24)
    with torch.no_grad():
        for count in range(4):
            for axes in itertools.combinations((2, 3, 4), count):
                expected += net(x.flip(axes), ("T1",)).flip(axes)[0] / 8
    section = settings(evaluation={"window": 24}).evaluation
    found = class_probabilities(net, x, ("T1",), section, "float32", flips=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    plain = class_probabilities(net, x, ("T1",), section, "float32")
    assert (found - plain).abs().max() > 1e-3
    for axis in (1, 2, 3):
        # Whatever the network prefers, the mean of all mirror images does not.
        mirrored = class_probabilities(net, x.flip(axis + 1), ("T1",), section, "float32", flips=True)
        torch.testing.assert_close(mirrored.flip(axis), found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize(
    ("size", "window", "overlap"), [((48, 20, 9), 24, 0.5), ((33, 25, 16), 16, 0.25), ((16, 40, 24), 16, 0.0)]
)
def test_progress_knows_the_number_of_windows(size: tuple, window: int, overlap: float, flips: bool) -> None:
    net = FedMEPDNet(BRATS, ("T1",), 4).start(0)
    # Windows without brain are quick, and are windows all the same.
    x = torch.zeros(1, 1, *size)
    told = []
    section = settings(evaluation={"window": window, "overlap": overlap}).evaluation
    class_probabilities(
        net, x, ("T1",), section, "float32", flips=flips, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(number, len(told)) for number in range(1, len(told) + 1)]
