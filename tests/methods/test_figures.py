"""What participants may tell of their training, by method."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fedmepd import methods
from fedmepd.networks.network import Outputs
from fedmepd.tasks.brats import BRATS
from fedmepd.training.losses import training_loss

# What the server notes of a participant beside its report, in curves or in history.json.
OF_THE_SERVER = {
    "steps",
    "seconds",
    "bytes_up",
    "bytes_down",
    "round",
    "times_median",
    "filters",
    "sites",
    "personal_share",
    "direction",
    "weights_limited",
}
BEGINNINGS = ("validation_", "test_", "loss_", "overlay_", "mixing_", "seconds/")

FIGURES = {
    "creamfl": {"contrast", "distillation"},
    "ditto": {"personal_loss"},
    "fedamm": {f"relative_pace_{name}" for name in ("FLAIR", "T1ce", "T1", "T2")},
    "fedmsplit": {"proximal"},
    "fedprox": {"proximal"},
}


@pytest.mark.parametrize("name", methods.names())
def test_no_figure_has_the_name_of_one_that_the_server_writes(name: str) -> None:
    method = methods.find(name)
    losses, figures = method.losses(BRATS), method.figures(BRATS)
    assert set(figures) == FIGURES.get(name, set())
    assert set(losses) - {"total", "segmentation", "regions", "auxiliary"} == (
        {"divergence", "similarity", "prototypes"} if name == "fedamm" else set()
    )
    for one in (*losses, *figures):
        assert one not in OF_THE_SERVER and not one.startswith(BEGINNINGS)
    assert not losses.keys() & figures.keys()


def test_bounds_follow_from_the_number_of_outputs() -> None:
    """Cross entropy of probability 0.005 is 5.3, of weights below 1; with the Dice loss, an output's is below 7."""
    assert methods.find("fedavg").losses(BRATS) == {
        "segmentation": (-0.01, 7),
        "regions": (-0.01, 28),
        "auxiliary": (-0.01, 28),
        "total": (-0.01, 63),
    }
    one = replace(BRATS, modalities=("T1",), words={"T1": ("t1",)}, doubts=())
    assert methods.find("fedavg").losses(one)["total"] == (-0.01, 42)


def test_the_worst_network_is_within_them() -> None:
    """It is certain of a wrong class everywhere: the Dice loss is 1, and cross entropy -log(0.005) (1 - share)."""
    label = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    label[:, :4], label[:, 4:8], label[:, 8:12] = 1, 2, 3
    wrong = torch.nn.functional.one_hot((label + 1) % 4, 4).movedim(-1, 1).float()
    regions = {level: wrong[:, :, :: 2 ** (level - 1), :: 2 ** (level - 1), :: 2 ** (level - 1)] for level in (1, 2)}
    loss = training_loss(Outputs(wrong, regions, {}, torch.stack([wrong, wrong]), []), label)
    assert float(sum(loss.segmentation)) == pytest.approx(1 - 0.75 * math.log(0.005), rel=1e-3)
    assert float(loss.total) < 7 * (1 + 2 + 2)
