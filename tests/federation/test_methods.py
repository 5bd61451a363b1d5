"""Each method as a whole: two sites and the fusion site, a few rounds, against plain loops."""

from __future__ import annotations

import torch

from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS
from fedmepd.training.checkpoints import load_model
from tests.federation.drive import fusion_state, make, play, same, server_state, site_state
from tests.federation.slow import Party, SlowFedMEPD
from tests.tiny import SITES, never, settings


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Equal but for rounding, which Adam makes larger: a hundredth of how far a weight has come from its start."""
    start = FedMEPDNet(BRATS, width=4, calibration={}, affine=True).start(0).state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        difference, way = (found[key] - value).norm(), (value - start[key]).norm()
        # A bias of keys has no effect on a softmax: its gradient is nothing but rounding.
        assert difference <= 0.01 * way + 1e-7, (key, float(difference), float(way))


def test_fedmepd(tiny, tmp_path) -> None:
    """Round 0 and three more, each from the state after the one before. The first does not count for the filters."""
    of = settings(
        calibration={"anchors_per_class": 1, "dropout": 0.0}, personalization={"patience": 2, "warmup_rounds": 1}
    )
    slow = SlowFedMEPD(of, tiny.data("fusion", of), [tiny.data(name, of) for name in SITES])
    server, sites = make(tiny, of, tmp_path)
    personal = {}
    for number in range(4):
        if number:
            slow.round(number)
            play(server, sites, number)
        state = server_state(tmp_path)
        networks = {name: site_state(tmp_path, name, number) for name in SITES} if number else {}
        close(state["state"], slow.server)
        for name, kept in networks.items():
            close(dict(kept["network"]), slow.sites[name].state())
        for level, rows in slow.anchors.items():
            torch.testing.assert_close(state["anchors"][f"anchors.{level}"], torch.stack(rows), rtol=1e-3, atol=1e-3)
        filters = 0
        personal[number] = 0
        wrong_patience = wrong_weight = 0.0
        for name, kept in state["personalization"].items():
            for layer, patience in slow.patience[name].items():
                found, expected = kept["weights"][layer], torch.tensor(slow.h[name][layer])
                filters += len(patience)
                personal[number] += patience.count(0)
                wrong_patience += int((kept["patience"][layer] != torch.tensor(patience)).sum())
                wrong_weight += int(((found - expected).abs() > 0.01 * expected).sum())
        # A cosine of nearly nothing may have either sign.
        assert wrong_patience / filters < 0.005 and wrong_weight / filters < 0.01
        slow.take_over(state, networks)
    assert personal[0] == personal[1] == personal[2] == 0 < personal[3] < filters


def test_local(tiny, tmp_path) -> None:
    """Everyone alone, without calibration; the fusion site as well."""
    of = settings(method="local", rounds=2)
    play(*make(tiny, of, tmp_path), 2)
    for name in ("fusion", *SITES):
        party = Party(of, tiny.data(name, of))
        for number in (0, 1, 2) if name == "fusion" else (1, 2):
            party.train(number)
        found = server_state(tmp_path)["state"] if name == "fusion" else site_state(tmp_path, name, 2)["network"]
        assert same(dict(found), party.state())


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


def test_fedbn(tiny, tmp_path) -> None:
    """As FedAvg, but every participant keeps the scales and shifts of its own normalisations."""
    of = settings("fedbn", rounds=2)
    parties = {name: Party(of, tiny.data(name, of)) for name in ("fusion", *SITES)}
    whole = parties["fusion"].state()
    scales = [key for key in whole if ".norm." in key]
    # Every convolution but the last one and those of the perceptrons has a normalisation with two parameters.
    assert len(scales) == 2 * sum(".conv.weight" in key for key in whole) > 100
    server, sites = make(tiny, of, tmp_path)
    for number in (1, 2):
        for party in parties.values():
            own = party.state()
            party.load({key: value for key, value in whole.items() if key in own and key not in scales})
            party.train(number)
        states = [(party.state(), len(party.data.train)) for party in parties.values()]
        for key in whole:
            total = sum(cases for state, cases in states if key in state)
            whole[key] = sum(cases * state[key] for state, cases in states if key in state) / total
        whole |= {key: parties["fusion"].state()[key] for key in scales}
        play(server, sites, number)
        found = server_state(tmp_path)["state"]
        close(found, whole)
        for name in SITES:
            kept = site_state(tmp_path, name, number)["network"]
            close(dict(kept), parties[name].state())
            assert any(not torch.equal(kept[key], found[key]) for key in scales if key in kept)
        # Goes on from what is kept, so that the rounding errors of two rounds do not add up.
        whole = found
        parties["fusion"].go_on_from(fusion_state(tmp_path))
        for name in SITES:
            parties[name].go_on_from(site_state(tmp_path, name, number))
    server.begin_round()
    assert not any(".norm." in key for key in server.payload("site-1").tensors)
    # A model says that its normalisations have parameters, and is built with them.
    sites["site-1"].test(server.test_payload("site-1"), never)
    model = load_model(tmp_path / "site-1/model_best.pt")
    assert model.affine and any(".norm." in key for key in model.state_dict())


def test_fedavg_starts_alike_everywhere(tiny, tmp_path) -> None:
    """Round 0 has no training: the first payload is the start that a site would have made itself."""
    server, _ = make(tiny, settings(method="fedavg"), tmp_path)
    server.begin_round()
    own = Party(settings(), tiny.data("site-1")).state()
    assert same({key: value.clone() for key, value in server.payload("site-1").tensors.items()}, own)


def test_fusion_only(tiny, tmp_path) -> None:
    """The sites hold the fusion site's model, as it was after the round before."""
    of = settings(method="fusion_only", rounds=2, evaluation={"every": 1}, training={"modality_dropout": False})
    server, sites = make(tiny, of, tmp_path)
    party = Party(of, tiny.data("fusion", of))
    party.train(0)
    sent = {}
    for number in (1, 2):
        sent[number] = {key: value.clone() for key, value in server_state(tmp_path)["state"].items()}
        play(server, sites, number)
        party.train(number)
        assert same(server_state(tmp_path)["state"], party.state())
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
    """With the dropout of modalities the model is another one; without, it is that of local training."""
    states = {}
    for method, changes in (("fusion_only", True), ("fusion_only", False), ("local", None)):
        folder = tmp_path / f"{method}-{changes}"
        training = {} if changes is None else {"training": {"modality_dropout": changes}}
        make(tiny, settings(method=method, **training), folder)
        states[method, changes] = server_state(folder)["state"]
    assert same(states["fusion_only", False], states["local", None])
    assert not same(states["fusion_only", True], states["fusion_only", False])
