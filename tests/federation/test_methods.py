"""Each method as a whole: two sites and the fusion site, a few rounds, against plain loops."""

from __future__ import annotations

import torch

from fedmepd.training.checkpoints import load_model
from tests.federation.drive import make, play, same, server_state, site_state
from tests.federation.slow import Party, SlowFedMEPD
from tests.tiny import SITES, never, settings

# Sums in another order, made larger by Adam: a hundredth of what a weight moves in one step.
TOLERANCE = 1e-5


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        difference = (found[key] - value).abs()
        # Where a gradient is nothing but rounding noise, Adam makes a step of any size of it.
        assert (difference > TOLERANCE).float().mean() < 0.01, (key, difference.max())
        assert difference.max() < 1e-3, key


def test_fedmepd(tiny, tmp_path) -> None:
    """Three rounds; filters become personal in the second."""
    of = settings(calibration={"anchors_per_class": 1, "dropout": 0.0}, personalization={"patience": 2})
    of = of.overriding(personalization={"warmup_rounds": 0})
    slow = SlowFedMEPD(of, tiny.data("fusion", of), [tiny.data(name, of) for name in SITES])
    server, sites = make(tiny, of, tmp_path)
    close(server_state(tmp_path)["state"], slow.server)
    for number in (1, 2, 3):
        slow.round(number)
        play(server, sites, number)
        state = server_state(tmp_path)
        close(state["state"], slow.server)
        for level, rows in slow.anchors.items():
            torch.testing.assert_close(server._anchors.tensors()[level], torch.stack(rows), rtol=1e-3, atol=1e-3)
        personal = 0
        for name in SITES:
            close(dict(site_state(tmp_path, name, number)["network"]), slow.sites[name].state())
            for layer, patience in slow.patience[name].items():
                kept = state["personalization"][name]
                # A cosine of nearly nothing may have either sign.
                assert (kept["patience"][layer] != torch.tensor(patience)).float().mean() < 0.02
                found, expected = kept["weights"][layer], torch.tensor(slow.h[name][layer])
                assert ((found - expected).abs() > 1e-3 * expected).float().mean() < 0.02
                personal += patience.count(0)
        assert (personal > 0) == (number >= 2)


def test_local(tiny, tmp_path) -> None:
    """Everyone alone, without calibration; the fusion site as well."""
    of = settings(method="local", rounds=2)
    play(*make(tiny, of, tmp_path), 2)
    for name in ("fusion", *SITES):
        party = Party(of, tiny.data(name, of))
        if name == "fusion":
            torch.manual_seed(0)
        for number in (0, 1, 2) if name == "fusion" else (1, 2):
            party.train(number)
        found = server_state(tmp_path)["state"] if name == "fusion" else site_state(tmp_path, name, 2)["network"]
        close(dict(found), party.state())


def test_fedavg(tiny, tmp_path) -> None:
    """Every part of the network is averaged by cases; the fusion site is one of three; encoders over their owners."""
    of = settings(method="fedavg", rounds=2)
    parties = {name: Party(of, tiny.data(name, of)) for name in ("fusion", *SITES)}
    whole = parties["fusion"].state()
    for number in (1, 2):
        for party in parties.values():
            own = party.state()
            party.load({key: value for key, value in whole.items() if key in own})
            party.train(number)
        states = [(party.state(), len(party.data.train)) for party in parties.values()]
        for key in whole:
            total = sum(cases for state, cases in states if key in state)
            whole[key] = sum(cases * state[key] for state, cases in states if key in state) / total
    play(*make(tiny, of, tmp_path), 2)
    close(server_state(tmp_path)["state"], whole)


def test_fedavg_starts_alike_everywhere(tiny, tmp_path) -> None:
    """Round 0 has no training: the first payload is the start that a site would have made itself."""
    server, _ = make(tiny, settings(method="fedavg"), tmp_path)
    own = Party(settings(), tiny.data("site-1")).state()
    assert same({key: value.clone() for key, value in server.payload("site-1").tensors.items()}, own)


def test_fusion_only(tiny, tmp_path) -> None:
    """The sites hold the fusion site's model, as it was after the round before."""
    of = settings(method="fusion_only", rounds=2, evaluation={"every": 1}, training={"modality_dropout": False})
    server, sites = make(tiny, of, tmp_path)
    party = Party(of, tiny.data("fusion", of))
    party.train(0)
    close(server_state(tmp_path)["state"], party.state())
    sent = {}
    for number in (1, 2):
        sent[number] = {key: value.clone() for key, value in server_state(tmp_path)["state"].items()}
        play(server, sites, number)
        party.train(number)
        close(server_state(tmp_path)["state"], party.state())
    for name in SITES:
        report = sites[name].test(server.test_payload(name), never)
        model = load_model(tmp_path / name / "model_best.pt")
        chosen = sent[report["selected_round"]]
        for key, value in model.state_dict().items():
            assert key.startswith("auxiliary.") or torch.equal(value, chosen[key])
        state = site_state(tmp_path, name, 2)
        assert not any(value.any() for value in state["optimizer"]["state"].values() if torch.is_tensor(value))
        assert state["optimizer"]["state"] == {}


def test_fusion_only_leaves_out_modalities(tiny, tmp_path) -> None:
    """With the dropout of modalities the model is another one; of the other methods' fusion training it is no part."""
    states = {}
    for method in ("fusion_only", "local"):
        for dropout in (True, False):
            folder = tmp_path / f"{method}-{dropout}"
            make(tiny, settings(method=method, training={"modality_dropout": dropout}), folder)
            states[method, dropout] = server_state(folder)["state"]
    assert same(states["local", True], states["local", False])
    assert same(states["fusion_only", False], states["local", False])
    assert not same(states["fusion_only", True], states["fusion_only", False])
