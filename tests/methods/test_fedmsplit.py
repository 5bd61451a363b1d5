"""FedMSplit as a whole against plain loops, with everyone there and with somebody away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from fedmepd.federation.open_round import TensorStore
from fedmepd.methods.fedmsplit import FedMSplitAtServer
from fedmepd.methods.method import Fused
from fedmepd.networks.build import build_network
from tests.federation.drive import fusion_state, make, play, same, server_state, site_state
from tests.federation.slow import Party
from tests.methods.plain import assert_survives_a_kill, hand_out, near, parties
from tests.tiny import SITES, settings

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
        kept = {name: site_state(tmp_path, name, number) for name in SITES} | {"fusion": fusion_state(tmp_path)}
        server.begin_round()
        for name in SITES:
            payload = server.payload(name).tensors
            near(payload, mixtures[name], start)
            near(kept[name]["network"], trained[name], start)
            # A site's mixture is not what it has trained.
            assert not torch.allclose(payload["decoder.classify.weight"], trained[name]["decoder.classify.weight"])
            mixtures[name] = payload
        # Goes on from what is kept, so that the rounding errors of two rounds do not add up.
        for name, party in everybody.items():
            party.adam.load_state_dict(kept[name]["optimizer"])
    assert not torch.equal(*(mixtures[name]["auxiliary.classify.weight"] for name in SITES))
    # Of T1 the fusion site is the only owner. Figures stand in the history too.
    assert figures["server/mixing_own_encoders.T1"] == 1 and "server/mixing_other_encoders.T1" not in figures
    assert 0.3 < figures["site-1/mixing_own_encoders.T1ce"] < 0.4 and figures["site-1/proximal"] > 0
    history = server.histories()
    for name in (*SITES, "server"):
        entry = history[name]["rounds"][-1]
        assert (entry["round"], entry["mixing_own_decoder"]) == (2, figures[f"{name}/mixing_own_decoder"])


OWNED = {"a": ("FLAIR", "T1ce"), "b": ("T1ce", "T2")}


class Server:
    """The method's part at the server alone; participants answer with random changes."""

    def __init__(self, folder) -> None:
        of = of_tiny()
        self.weights = build_network(of).start(0).state_dict()
        self.method = FedMSplitAtServer(of, self.weights, TensorStore(folder))
        for name, modalities in OWNED.items():
            self.method.join(name, modalities)

    def round(self, number: int, answers: Sequence[str], fusion: bool = True, withheld: str = "nothing") -> State:
        """Plays a round; returns what everyone who answers has trained, as ``<name> <key>``."""
        generator = torch.Generator().manual_seed(number)
        changes = {
            name: {
                key: 0.1 * torch.randn(shape, generator=generator) for key, shape in self.method.expect(name).items()
            }
            for name in ("a", "b", "fusion")
        }
        trained = {}
        self.method.open(number)
        for name in answers:
            given = {key: change for key, change in changes[name].items() if not key.startswith(withheld)}
            sent = self.method.send(name)
            trained |= {f"{name} {key}": sent[key] + change for key, change in given.items()}
            self.method.take(name, given, 3)

        def fuse(weights, number, extras=None):
            return Fused({key: weights[key] + changes["fusion"][key] for key in weights}, {}, 3) if fusion else None

        self.method.close(fuse, number)
        return trained


def test_order_of_answers_changes_no_bit(tmp_path) -> None:
    sent = []
    for names in (("a", "b"), ("b", "a")):
        server = Server(tmp_path / "".join(names))
        for number in (1, 2):
            server.round(number, names)
        sent.append({name: server.method.send(name) for name in (*names, "fusion")})
    assert same(*sent)


def test_who_is_away_keeps_a_mixture(tmp_path) -> None:
    """In round 2 b and the fusion site are away: a is alone with its blocks, the others keep theirs."""
    server = Server(tmp_path)
    server.round(1, ("a", "b"))
    before = {name: server.method.send(name) for name in ("b", "fusion")}
    weights = server.method.weights
    trained = server.round(2, ("a",), fusion=False)
    assert same({name: server.method.send(name) for name in ("b", "fusion")}, before)
    assert same(server.method.weights, weights) and server.method.figures()["a"]["mixing_own_decoder"] == 1
    assert server.method.figures().keys() == {"a"}
    for key, value in server.method.send("a").items():
        torch.testing.assert_close(value, trained[f"a {key}"])


def test_who_has_no_mixture_receives_the_global_model(tmp_path) -> None:
    """A site that joins later; one that withholds an encoder from the first round on."""
    server = Server(tmp_path)
    server.round(1, ("a", "b"), withheld="encoders.T1ce.")
    server.method.join("late", ("T1ce", "T1"))
    received = server.method.send("late")
    assert {key.split(".")[1] for key in received if key.startswith("encoders.")} == {"T1ce", "T1"}
    assert all(torch.equal(value, server.method.weights[key]) for key, value in received.items())
    for name in OWNED:
        own = server.method.figures()[name]
        assert "mixing_own_encoders.T1ce" not in own and 0 < own["mixing_own_decoder"] < 1
        for key, value in server.method.send(name).items():
            assert torch.equal(value, server.method.weights[key]) == key.startswith("encoders.T1ce.")


@pytest.mark.slow
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
