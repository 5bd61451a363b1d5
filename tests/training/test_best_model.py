"""Which of a run's models is the best one."""

from __future__ import annotations

from functools import partial

import pytest

from fedmepd.data.training_images import ImageMeasures
from fedmepd.job_settings import make_settings
from fedmepd.networks.build import build_network
from fedmepd.training.best_model import ModelFiles
from fedmepd.training.checkpoints import About

SETTINGS = make_settings("phantom", {"network": {"width": 4}})


@pytest.fixture
def offer(tmp_path):
    about = partial(About.of, "server", SETTINGS, ImageMeasures(), True)
    files = ModelFiles(tmp_path, "best.pt", "last.pt", about, lambda model, **of: None)
    network = build_network(SETTINGS)

    def offer(number: int, **dice: float) -> bool:
        return files.offer(network, number, {"round": number, "dice": dice, "mdsc": sum(dice.values()) / len(dice)})

    return offer


def test_the_higher_mean_wins_and_of_the_same_the_first(offer) -> None:
    assert [offer(1, WT=0.5), offer(2, WT=0.6), offer(3, WT=0.6), offer(4, WT=0.4)] == [True, True, False, False]


def test_a_file_that_is_gone_or_damaged_is_replaced(offer, tmp_path) -> None:
    assert offer(1, WT=0.5)
    (tmp_path / "best.pt").unlink()
    assert offer(2, WT=0.4)
    (tmp_path / "best.pt").write_bytes(b"damaged")
    assert offer(3, WT=0.3)


def test_the_mean_over_the_regions_that_a_site_tells_beats_none_over_more(offer) -> None:
    """Too few cases have the last region in the segmentation of an early round, so that it is withheld there."""
    assert offer(1, WT=0.8)
    assert offer(2, WT=0.8, ET=0.2)
    assert not offer(3, WT=0.9)
    assert offer(4, WT=0.8, ET=0.3)
