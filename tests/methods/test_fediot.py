"""FedIoT as a whole against plain loops, and the weights of its sites."""

from __future__ import annotations

import pytest
import torch

from fedmepd.methods.fediot import FedIoTAtServer
from fedmepd.methods.method import Fused
from fedmepd.networks.build import build_network
from tests.federation.drive import make, play, server_state, site_state
from tests.methods.plain import assert_survives_a_kill, average, cases, hand_out, near, parties
from tests.tiny import SITES, settings


def only_decoders(network) -> None:
    """Encoders have no gradients, so Adam leaves them alone."""
    for key, value in network.named_parameters():
        if key.startswith("encoders."):
            value.grad = None


@pytest.mark.parametrize("personal", [False, True])
def test_fediot(personal, tiny, tmp_path) -> None:
    """Two rounds: sites, mean of encoders by cases (each site has two modalities), the fusion site's decoder."""
    of = settings("fediot", rounds=2, fediot={"personal_decoder": personal})
    everybody = parties(tiny, of)
    start, whole = everybody["fusion"].state(), everybody["fusion"].state()
    sites = {name: everybody[name] for name in SITES}
    server, members = make(tiny, of, tmp_path)
    for number in (1, 2):
        for party in sites.values():
            hand_out(whole, party, "encoders.")
            if not personal:
                hand_out(whole, party, "decoder.")
            party.train(number)
        average(whole, sites, cases, "encoders.")
        hand_out(whole, everybody["fusion"])
        everybody["fusion"].train(number, change_gradients=only_decoders)
        play(server, members, number)
        found = server_state(tmp_path)["state"]
        near(found, everybody["fusion"].state(), start)
        for name, party in sites.items():
            near(site_state(tmp_path, name, number)["network"], party.state(), start)
        # Goes on from what is kept, so that rounding errors of two rounds do not add up.
        whole = found
    server.begin_round()
    sent = server.payload("site-1").tensors
    assert {key.split(".")[0] for key in sent} == ({"encoders"} if personal else {"encoders", "decoder"})
    assert {key.split(".")[1] for key in sent if key.startswith("encoders.")} == set(SITES["site-1"])
    # Nobody has T1 but the fusion site, which does not change it.
    assert all(torch.equal(found[key], start[key]) for key in found if key.startswith("encoders.T1."))


@pytest.mark.parametrize("alpha", [1, 10, 100])
def test_sites_with_several_modalities_count_more(alpha) -> None:
    """T1ce of one site with it alone (4 cases) and of two with more (3 and 2 cases)."""
    of = settings("fediot", fediot={"multimodal_weight": alpha})
    weights = build_network(of).start(0).state_dict()
    server = FedIoTAtServer(of, weights, store=None)
    owners = {"a": (("T1ce",), 4), "b": (("FLAIR", "T1ce"), 3), "c": (("T1ce", "T1", "T2"), 2)}
    server.open(1)
    generator = torch.Generator().manual_seed(0)
    changes = {}
    for name, (modalities, count) in owners.items():
        server.join(name, modalities)
        changes[name] = {key: torch.randn(shape, generator=generator) for key, shape in server.expect(name).items()}
        server.take(name, changes[name], count)
    seen = {}

    def fuse(given, number, extras=None):
        seen.update(given)
        return Fused(given, {}, 1)

    server.close(fuse, 1)
    key = "encoders.T1ce.levels.2.0.conv.weight"
    mean = (4 * changes["a"][key] + alpha * 3 * changes["b"][key] + alpha * 2 * changes["c"][key]) / (4 + alpha * 5)
    torch.testing.assert_close(seen[key], weights[key] + mean)
    key = "encoders.FLAIR.levels.2.0.conv.weight"
    torch.testing.assert_close(seen[key], weights[key] + changes["b"][key])
    assert torch.equal(seen["decoder.classify.weight"], weights["decoder.classify.weight"])


@pytest.mark.slow
def test_survives_a_kill(tiny, tmp_path) -> None:
    assert_survives_a_kill(tiny, settings("fediot", rounds=2), tmp_path)
