"""Methods whose last rounds are without exchange: perFL, and training at the fusion site followed by fine-tuning."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedmepd.errors import FedMEPDError
from fedmepd.federation.exchange import Payload
from fedmepd.training.checkpoints import load_model
from tests.federation.drive import fusion_state, make, make_site, play, same, server_state, site_state
from tests.methods.plain import assert_survives_a_kill, average, cases, hand_out, near, parties
from tests.tiny import SITES, never, settings


@pytest.mark.parametrize(
    ("rounds", "share", "last"),
    [(1000, 0.1, 900), (20, 0.1, 18), (20, 0.5, 10), (3, 0.1, 2), (2, 0.9, 1), (1, 0.5, 1), (7, 0.5, 3)],
)
def test_last_common_round(rounds: int, share: float, last: int) -> None:
    """Half of seven rounds are four: Python rounds 3.5 to the even number."""
    for method in ("perfl", "fusion_finetune"):
        assert settings(method, rounds=rounds, tuning={"share": share}).last_common() == last


def test_perfl(tiny, tmp_path) -> None:
    """Two rounds of FedAvg whose rate decays as if there were no more, then one alone at ten times the last rate."""
    of = settings("perfl", rounds=3, tuning={"share": 0.3, "rate_factor": 10}, evaluation={"every": 3})
    everybody = parties(tiny, of)
    start, whole = everybody["fusion"].state(), everybody["fusion"].state()
    server, sites = make(tiny, of, tmp_path)
    for number in (1, 2):
        for party in everybody.values():
            hand_out(whole, party)
            party.train(number, rate=party.rate(number, 2))
        average(whole, everybody, cases)
        play(server, sites, number)
        near(server_state(tmp_path)["state"], whole, start)
        # Goes on from what is kept, so that the rounding errors of several rounds do not add up.
        whole = server_state(tmp_path)["state"]
        everybody["fusion"].go_on_from(fusion_state(tmp_path))
        for name in SITES:
            everybody[name].go_on_from(site_state(tmp_path, name, number))
    before = {name: everybody[name].state() for name in SITES}
    for name in SITES:
        hand_out(whole, everybody[name])
        everybody[name].train(3, rate=10 * everybody[name].rate(2, 2))
    server.begin_round()
    sent = {name: server.payload(name) for name in SITES}
    updates = {name: sites[name].train(sent[name], never) for name in SITES}
    for name, update in updates.items():
        # The site takes in the whole model for the last time, trains, and returns nothing.
        assert sent[name].tensors.keys() == before[name].keys()
        assert update.tensors == {} and update.report["steps"] == -(-cases(everybody[name]) // 2)
        server.accept(name, update)
    server.finish_round(never)
    assert server.last_round["fused"] is True
    state = server_state(tmp_path)
    near(state["state"], whole, start)
    assert state["fusion"]["round"] == 2
    for name in SITES:
        near(dict(site_state(tmp_path, name, 3)["network"]), everybody[name].state(), start)
        # Round 2 is validated although it is not due: its model may be the better one.
        history = [entry["round"] for entry in server.histories()[name]["validation"]]
        assert history == [2, 3]
        report = sites[name].test(server.test_payload(name), never)
        chosen = {2: before[name], 3: everybody[name].state()}[report["selected_round"]]
        near(dict(load_model(tmp_path / name / "model_best.pt").state_dict()), chosen, start)


def test_fusion_finetune(tiny, tmp_path) -> None:
    """Rounds 0 to 2 at the fusion site, 3 and 4 at every site alone, from the fusion site's network."""
    changes = {"training": {"modality_dropout": False}, "tuning": {"share": 0.5, "rate_share": 0.5}}
    of = settings("fusion_finetune", rounds=4, evaluation={"every": 4}, **changes)
    everybody = parties(tiny, of)
    fusion = everybody["fusion"]
    start = fusion.state()
    for number in (0, 1, 2):
        fusion.train(number, rate=fusion.rate(number, 2))
    whole = fusion.state()
    for name in SITES:
        hand_out(whole, everybody[name])
        everybody[name].train(3, rate=0.5 * fusion.rate(0, 1))
        everybody[name].train(4, rate=0.5 * fusion.rate(1, 1))
    server, sites = make(tiny, of, tmp_path)
    sent = {}
    while server.round < 4:
        server.begin_round()
        for name, site in sites.items():
            payload = server.payload(name)
            sent[name, server.round + 1] = len(payload.tensors)
            update = site.train(payload, never)
            assert update.tensors == {} and bool(update.report["steps"]) is (server.round >= 2)
            server.accept(name, update)
        server.finish_round(never)
    near(server_state(tmp_path)["state"], whole, start)
    for name in SITES:
        near(dict(site_state(tmp_path, name, 4)["network"]), everybody[name].state(), start)
        # Round 2 for its validation, round 3 to train on from it.
        numbers = [number for number in (1, 2, 3, 4) if sent[name, number]]
        assert numbers == [2, 3] and sent[name, 3] == len(everybody[name].state())


def test_fusion_finetune_leaves_out_modalities(tiny, tmp_path) -> None:
    states = []
    for dropout in (True, False):
        of = settings("fusion_finetune", rounds=2, training={"modality_dropout": dropout})
        make(tiny, of, tmp_path / str(dropout))
        states.append(server_state(tmp_path / str(dropout))["state"])
    assert not same(*states)


def test_a_site_that_joins_when_the_others_tune(tiny, tmp_path) -> None:
    """It gets the model too, once; whoever has lost its state is told so, and whoever has not goes on."""
    of = settings("fusion_finetune", rounds=4)
    server, sites = make(tiny, of, tmp_path, ["site-1"])
    play(server, sites, 3)
    late = make_site(tiny, of, tmp_path, "site-2")
    server.register(late.profile())
    server.begin_round()
    payloads = {name: server.payload(name) for name in SITES}
    assert payloads["site-1"].tensors == {} and payloads["site-2"].tensors
    late.train(payloads["site-2"], never)
    with pytest.raises(FedMEPDError, match="round 4: the site has lost its state of this run"):
        make_site(tiny, of, tmp_path / "lost", "site-1").train(payloads["site-1"], never)
    # The site has the model that it tunes already; what is sent once more does not undo its work.
    kept = site_state(tmp_path, "site-1", 3)["network"]
    seen = []

    def look() -> bool:
        seen.append(same(dict(sites["site-1"]._network.state_dict()), dict(kept)))
        return False

    again = {key: value for key, value in server._method.weights.items() if key in kept}
    sites["site-1"].train(Payload(4, again), look)
    assert seen[0] is True


def test_a_site_with_another_modality_tunes_from_the_model(tiny, tmp_path) -> None:
    """Its own network has no trained encoder of the new modality."""
    of = settings("fusion_finetune", rounds=4)
    server, sites = make(tiny, of, tmp_path, ["site-1"])
    play(server, sites, 3)
    data = tiny.data("site-1", of)
    fewer = [replace(case, images={"T1ce": case.images["T1ce"]}) for case in data.train]
    site = type(sites["site-1"])(
        "site-1",
        of,
        replace(data, modalities=("T1ce",), train=fewer, validation=[], test=[]),
        tmp_path / "site-1",
        "cpu",
    )
    server.register(site.profile())
    server.begin_round()
    payload = server.payload("site-1")
    assert {key.split(".")[1] for key in payload.tensors if key.startswith("encoders.")} == {"T1ce"}
    seen = []

    def look() -> bool:
        state = site._network.state_dict()
        seen.append(all((state[key] == value).all() for key, value in payload.tensors.items()))
        return False

    site.train(payload, look)
    assert seen[0] is True


@pytest.mark.slow
def test_survives_a_kill(tiny, tmp_path) -> None:
    assert_survives_a_kill(tiny, settings("perfl", rounds=3, tuning={"share": 0.6}), tmp_path)
