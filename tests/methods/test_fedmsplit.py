"""FedMSplit as a whole against plain loops, with everyone there and with somebody away."""

from __future__ import annotations

import math

import pytest
import torch

from fedmepd.errors import FusionAway
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.server import FederationServer
from tests.federation.drive import CPU, make, make_site, play, same, server_state
from tests.federation.slow import Party
from tests.methods.plain import assert_survives_a_kill, hand_out, near, parties
from tests.tiny import SITES, never, settings

State = dict[str, torch.Tensor]

LAMBDA = 20.0


def mixed(trained: dict[str, State]) -> dict[str, State]:
    """Everyone's mixture of what those who took part have trained, pair by pair."""
    blocks: dict[str, list[str]] = {}
    for key in sorted({key for state in trained.values() for key in state}):
        blocks.setdefault(key.split(".levels")[0] if key.startswith("encoders") else key.split(".")[0], []).append(key)
    attention: dict[tuple[str, str, str], float] = {}
    for block, keys in blocks.items():
        owners = [name for name, state in trained.items() if keys[0] in state]
        for one in owners:
            products = {}
            for other in owners:
                product = sum(float((trained[one][key].double() * trained[other][key].double()).sum()) for key in keys)
                products[other] = product / math.sqrt(sum(trained[one][key].numel() for key in keys))
            largest = max(products.values())
            powers = {other: math.exp(product - largest) for other, product in products.items()}
            for other, power in powers.items():
                attention[block, one, other] = power / sum(powers.values())
    result: dict[str, State] = {name: {} for name in trained}
    for block, keys in blocks.items():
        for one, state in trained.items():
            if keys[0] not in state:
                continue
            weights = {}
            for other in trained:
                common = [name for name in blocks if (name, one, other) in attention]
                if (block, one, other) in attention:
                    edge = sum(attention[name, one, other] for name in common) / len(common)
                    weights[other] = attention[block, one, other] * edge
            for key in keys:
                total = sum(weight * trained[other][key].double() for other, weight in weights.items())
                result[one][key] = (total / sum(weights.values())).float()
    return result


def trained_near(party: Party, mixture: State, number: int) -> State:
    """A round of a participant: the loss has lambda |w - mixture|^2."""
    party.load(mixture)

    def pull(network) -> None:
        for key, value in network.named_parameters():
            if value.grad is not None:
                value.grad += 2 * LAMBDA * (value.detach() - mixture[key])

    party.train(number, change_gradients=pull)
    return party.state()


def of_tiny():
    return settings("fedmsplit", rounds=2, mixing={"proximal": LAMBDA})


def test_fedmsplit(tiny, tmp_path) -> None:
    of = of_tiny()
    everybody = parties(tiny, of)
    start = everybody["fusion"].state()
    mixtures = {name: hand_out(start, party) for name, party in everybody.items()}
    server, sites = make(tiny, of, tmp_path)
    figures: dict[str, float] = {}
    for number in (1, 2):
        trained = {name: trained_near(party, mixtures[name], number) for name, party in everybody.items()}
        mixtures = mixed(trained)
        figures = play(server, sites, number)
    # The global model is the fusion site's own, as it has trained it.
    near(server_state(tmp_path)["state"], trained["fusion"], start)
    server.begin_round()
    for name in SITES:
        payload = server.payload(name).tensors
        near(payload, mixtures[name], start)
        # A site's mixture is not what it has trained, nor anybody else's mixture.
        assert not torch.allclose(payload["decoder.classify.weight"], trained[name]["decoder.classify.weight"])
    own = (mixtures[name]["auxiliary.classify.weight"] for name in SITES)
    assert not torch.equal(*own)
    # Of T1 the fusion site is the only owner. Figures stand in the history too.
    assert figures["server/mixing_own_encoders.T1"] == 1 and "server/mixing_other_encoders.T1" not in figures
    assert 0.3 < figures["site-1/mixing_own_encoders.T1ce"] < 0.4 and figures["site-1/proximal"] > 0
    history = server.histories()
    for name in (*SITES, "server"):
        entry = history[name]["rounds"][-1]
        assert (entry["round"], entry["mixing_own_decoder"]) == (2, figures[f"{name}/mixing_own_decoder"])


def test_order_of_answers_changes_no_bit(tiny, tmp_path) -> None:
    payloads = []
    for backwards in (False, True):
        server, sites = make(tiny, of_tiny(), tmp_path / str(backwards))
        play(server, sites, 1, backwards=backwards)
        server.begin_round()
        payloads.append({name: server.payload(name).tensors for name in SITES})
    assert same(*payloads)


def test_who_is_away_keeps_a_mixture(tiny, tmp_path) -> None:
    """In round 2 site 2 and the fusion site are away: site 1 is alone with its blocks, the others keep theirs."""

    class Away(FusionSite):
        away = False

        def fuse(self, *arguments, **options):
            if self.away:
                raise FusionAway("away", "away")
            return super().fuse(*arguments, **options)

    of = of_tiny()
    fusion = Away(of, tiny.data("fusion", of), tmp_path / "server/fusion", CPU)
    server = FederationServer(of, fusion, tmp_path / "server", tmp_path / "results")
    sites = {name: make_site(tiny, of, tmp_path, name) for name in SITES}
    for site in sites.values():
        server.register(site.profile())
    server.start(never)
    play(server, sites, 1)
    fusion.away = True
    server.begin_round()
    before = {name: server.payload(name).tensors for name in SITES}
    update = sites["site-1"].train(server.payload("site-1"), never)
    server.accept("site-1", update)
    figures = server.finish_round(never)
    assert figures["site-1/mixing_own_decoder"] == 1 and "site-2/mixing_own_decoder" not in figures
    server.begin_round()
    assert same(server.payload("site-2").tensors, before["site-2"])
    for key, value in server.payload("site-1").tensors.items():
        torch.testing.assert_close(value, before["site-1"][key] + update.tensors[key], rtol=0, atol=1e-6)


def test_a_withheld_encoder_stays_out_of_the_mixtures(tiny, tmp_path) -> None:
    server, sites = make(tiny, of_tiny(), tmp_path)
    server.begin_round()
    sent = {name: server.payload(name).tensors for name in SITES}
    for name, site in sites.items():
        update = site.train(server.payload(name), never)
        if name == "site-2":
            for key in [key for key in update.tensors if key.startswith("encoders.T1ce.")]:
                del update.tensors[key]
        server.accept(name, update)
    figures = server.finish_round(never)
    assert "site-2/mixing_own_encoders.T1ce" not in figures and "site-2/mixing_own_encoders.T2" in figures
    assert figures["site-1/mixing_own_encoders.T1ce"] == pytest.approx(0.5, abs=0.01)
    server.begin_round()
    payload = server.payload("site-2").tensors
    assert torch.equal(
        payload["encoders.T1ce.levels.1.1.conv.weight"], sent["site-2"]["encoders.T1ce.levels.1.1.conv.weight"]
    )


def test_survives_a_kill(tiny, tmp_path) -> None:
    """Mixtures are on disk: everyone is sent the same bits after a new start."""
    of = of_tiny()
    assert_survives_a_kill(tiny, of, tmp_path)
    payloads = []
    for name in ("one", "many"):
        server, _ = make(tiny, of, tmp_path / name)
        server.begin_round()
        payloads.append({site: server.payload(site).tensors for site in SITES})
        # What no state needs is gone.
        kept = list((tmp_path / name / "server/changes/kept").iterdir())
        assert len(kept) == 4 + 4 + 6  # two encoders a site, four at the fusion site, two decoders each
    assert same(*payloads)
