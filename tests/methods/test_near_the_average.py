"""FedAvg and its variants that train near, or beside, what they received: FedProx, IOP-FL, Ditto."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmepd.seeds import derive_seed
from fedmepd.training.checkpoints import load_model
from tests.federation.drive import make, play, server_state, site_state
from tests.federation.slow import Party
from tests.methods.plain import assert_survives_a_kill, average, cases, hand_out, near, parties
from tests.tiny import SITES, never, settings


def pull(strength: float, given: dict[str, torch.Tensor]):
    """Adds strength * (w - w_given) to every gradient."""

    def change(network) -> None:
        for key, value in network.named_parameters():
            if value.grad is not None:
                value.grad += strength * (value.detach() - given[key])

    return change


def test_fedprox(tiny, tmp_path) -> None:
    of = settings("fedprox", rounds=2, proximal={"mu": 50.0})
    everybody = parties(tiny, of)
    start = everybody["fusion"].state()
    whole = everybody["fusion"].state()
    terms = {}
    for number in (1, 2):
        for name, party in everybody.items():
            given = hand_out(whole, party)
            party.train(number, change_gradients=pull(50.0, given))
            terms[name] = 25 * sum(float((value - given[key]).square().sum()) for key, value in party.state().items())
        average(whole, everybody, cases)
    server, sites = make(tiny, of, tmp_path)
    figures = play(server, sites, 2)
    near(server_state(tmp_path)["state"], whole, start)
    for name in SITES:
        assert figures[f"{name}/proximal"] == pytest.approx(terms[name], rel=0.02) and terms[name] > 0
    assert figures["server/proximal"] == pytest.approx(terms["fusion"], rel=0.02)


def test_fedprox_without_its_term_is_fedavg(tiny, tmp_path) -> None:
    states = []
    for name, changes in (("fedprox", {"proximal": {"mu": 0}}), ("fedavg", {})):
        play(*make(tiny, settings(name, rounds=1, **changes), tmp_path / name), 1)
        states.append(server_state(tmp_path / name)["state"])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])


def subsets(seed: int, name: str, number: int):
    """One of the non-empty subsets of a case's modalities, counted from the small ones to the large ones."""
    random = np.random.default_rng(derive_seed(seed, name, "modalities", number))

    def choose(modalities):
        found = [
            tuple(name for place, name in enumerate(modalities) if mask >> place & 1)
            for mask in range(1, 2 ** len(modalities))
        ]
        found.sort(key=lambda subset: (len(subset), [modalities.index(name) for name in subset]))
        return found[random.integers(len(found))]

    return choose


def test_fedavg_with_modality_dropout(tiny, tmp_path) -> None:
    """Every participant leaves out some of the modalities that it has."""
    of = settings("fedavg", rounds=2, training={"modality_dropout": True, "batch": 1})
    everybody = parties(tiny, of)
    start, whole = everybody["fusion"].state(), everybody["fusion"].state()
    for number in (1, 2):
        for name, party in everybody.items():
            hand_out(whole, party)
            party.train(number, choose=subsets(of.seed, name, number))
        average(whole, everybody, cases)
    play(*make(tiny, of, tmp_path), 2)
    near(server_state(tmp_path)["state"], whole, start)


def test_fedavg_with_a_shared_encoder(tiny, tmp_path) -> None:
    """One encoder for all modalities travels to every site, and is averaged over all participants."""
    of = settings("fedavg", rounds=2, network={"shared_encoder": True})
    everybody = parties(tiny, of)
    start, whole = everybody["fusion"].state(), everybody["fusion"].state()
    assert {key.split(".")[1] for key in whole if key.startswith("encoders.")} == {"shared"}
    for number in (1, 2):
        for party in everybody.values():
            assert hand_out(whole, party).keys() == whole.keys()
            party.train(number)
        average(whole, everybody, cases)
    play(*make(tiny, of, tmp_path), 2)
    near(server_state(tmp_path)["state"], whole, start)


def test_iopfl(tiny, tmp_path) -> None:
    """w is FedAvg's; p moves towards each round's w by 1 - alpha, and is what a site validates and tests."""
    of = settings("iopfl", rounds=3, personal={"alpha": 0.75}, evaluation={"every": 1})
    everybody = parties(tiny, of)
    start, whole = everybody["fusion"].state(), everybody["fusion"].state()
    personal: dict[str, dict] = {}
    history: dict[str, list[dict]] = {name: [] for name in SITES}
    for number in (1, 2, 3):
        for name, party in everybody.items():
            hand_out(whole, party)
            party.train(number)
            own, old = party.state(), personal.get(name)
            personal[name] = own if old is None else {key: 0.75 * old[key] + 0.25 * own[key] for key in own}
            if name in history:
                history[name].append(personal[name])
        average(whole, everybody, cases)
    server, sites = make(tiny, of, tmp_path)
    play(server, sites, 3)
    near(server_state(tmp_path)["state"], whole, start)
    for name in SITES:
        kept = site_state(tmp_path, name, 3)
        near(kept["method"]["personal"], personal[name], start)
        near(kept["network"], everybody[name].state(), start)
        report = sites[name].test(server.test_payload(name), never)
        model = load_model(tmp_path / name / "model_best.pt").state_dict()
        near(dict(model), history[name][report["selected_round"] - 1], start)


def test_ditto(tiny, tmp_path) -> None:
    """w is FedAvg's; v trains on the same crops, pulled towards the w that the site received, and is what it tests."""
    of = settings("ditto", rounds=2, personal={"strength": 20.0}, evaluation={"every": 2})
    everybody, beside = parties(tiny, of), {name: Party(of, tiny.data(name, of)) for name in SITES}
    start, whole = everybody["fusion"].state(), everybody["fusion"].state()
    for number in (1, 2):
        for name, party in everybody.items():
            given = hand_out(whole, party)
            party.train(number)
            if name in beside:
                beside[name].train(number, change_gradients=pull(20.0, given))
        average(whole, everybody, cases)
    server, sites = make(tiny, of, tmp_path)
    play(server, sites, 1)
    server.begin_round()
    for name, site in sites.items():
        update = site.train(server.payload(name), never)
        # Two networks: twice the steps, and the report says so.
        assert update.report["steps"] == 2 * -(-cases(everybody[name]) // 2)
        assert update.report["figures"]["personal_loss"] > 0
        server.accept(name, update)
    server.finish_round(never)
    near(server_state(tmp_path)["state"], whole, start)
    for name in SITES:
        kept = site_state(tmp_path, name, 2)
        near(kept["method"]["network"], beside[name].state(), start)
        near(kept["network"], everybody[name].state(), start)
        assert not torch.equal(
            kept["network"]["decoder.classify.weight"], kept["method"]["network"]["decoder.classify.weight"]
        )
        sites[name].test(server.test_payload(name), never)
        near(dict(load_model(tmp_path / name / "model_best.pt").state_dict()), beside[name].state(), start)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["iopfl", "ditto"])
def test_survives_a_kill(method, tiny, tmp_path) -> None:
    assert_survives_a_kill(tiny, settings(method, rounds=2), tmp_path)
