"""An encoder that the fusion hospital withholds has no share in a mean: it does not count as one without changes."""

from __future__ import annotations

import pytest
import torch

from fedmepd.config import FUSION_SITE
from fedmepd.methods import find
from fedmepd.methods.method import Fused
from fedmepd.networks.build import build_network
from tests.tiny import settings

HELD, SENT = "encoders.T1ce.levels.2.0.conv.weight", "encoders.FLAIR.levels.2.0.conv.weight"


@pytest.mark.parametrize("method", ["fedavg", "fedprox", "iopfl"])
def test_the_mean_is_the_sites(method) -> None:
    of = settings(method)
    weights = build_network(of).start(0).state_dict()
    server = find(method).at_server(of, weights, None)
    server.join("a", ("FLAIR", "T1ce"))
    server.open(1)
    server.take("a", {key: torch.ones(shape) for key, shape in server.expect("a").items()}, 2)

    def fuse(given, number, extras=None):
        trained = {key: value if key.startswith("encoders.T1ce.") else value + 4 for key, value in given.items()}
        return Fused(trained, {}, 6)

    server.close(fuse, 1)
    moved = {key: float((server.weights[key] - weights[key]).flatten()[0]) for key in (HELD, SENT)}
    assert moved == pytest.approx({HELD: 1.0, SENT: (2 * 1 + 6 * 4) / 8}, rel=1e-5)


def test_fedmsplit_mixes_what_was_trained(tmp_path) -> None:
    from fedmepd.federation.open_round import TensorStore

    of = settings("fedmsplit")
    server = find("fedmsplit").at_server(of, build_network(of).start(0).state_dict(), TensorStore(tmp_path))
    server.join("a", ("FLAIR", "T1ce"))
    server.open(1)
    server.take("a", {key: torch.full(shape, 0.5) for key, shape in server.expect("a").items()}, 2)

    def fuse(given, number, extras=None):
        return Fused(
            {key: value if key.startswith("encoders.T1ce.") else value + 4 for key, value in given.items()}, {}, 6
        )

    server.close(fuse, 1)
    figures = server.figures()
    # Two have trained an encoder of FLAIR, and the site alone one of T1ce.
    assert "mixing_other_encoders.FLAIR" in figures["a"]
    assert figures["a"]["mixing_own_encoders.T1ce"] == 1 and "mixing_other_encoders.T1ce" not in figures["a"]
    assert "mixing_own_encoders.T1ce" not in figures[FUSION_SITE]
