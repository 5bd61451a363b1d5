"""Methods that exchange encoders alone: FedPer, FedMEMA, FedRep."""

from __future__ import annotations

from fedmepd.config import Settings
from fedmepd.job_settings import make_settings
from tests.federation.drive import make, play, same, server_state, site_state
from tests.methods.plain import average, hand_out, near, parties
from tests.tiny import SITES, settings


def assert_same_as_fedmepd(tiny, folder, method: Settings, fedmepd: Settings) -> None:
    """The same weights to the last bit at the server and at the sites."""
    rounds = method.rounds
    for name, of in (("method", method), ("fedmepd", fedmepd)):
        play(*make(tiny, of, folder / name), rounds)
    states = [server_state(folder / name) for name in ("method", "fedmepd")]
    assert same(states[0]["state"], states[1]["state"]) and same(states[0]["anchors"], states[1]["anchors"])
    for site in SITES:
        kept = [site_state(folder / name, site, rounds)["network"] for name in ("method", "fedmepd")]
        assert same(dict(kept[0]), dict(kept[1]))


def test_fedmema_is_fedmepd_with_a_personal_decoder(tiny, tmp_path) -> None:
    calibration = {"anchors_per_class": 3}
    personalization = {"patience": 0}
    fedmepd = settings("fedmepd", rounds=2, calibration=calibration, personalization=personalization)
    method = settings("fedmema", rounds=2, calibration=calibration)
    assert_same_as_fedmepd(tiny, tmp_path, method, fedmepd)
    server, _ = make(tiny, method, tmp_path / "method")
    server.begin_round()
    # Bytes: own encoders and anchors, and nothing of the decoder.
    assert {key.split(".")[0] for key in server.payload("site-1").tensors} == {"encoders", "anchors"}


def test_fedmema_has_three_anchors_a_class() -> None:
    assert make_settings("paper", {"method": "fedmema"}).calibration.anchors_per_class == 3
    assert make_settings("phantom", {"method": "fedmema"}).calibration.residual is True


def test_fedper_is_fedmepd_without_calibration_and_shared_filters(tiny, tmp_path) -> None:
    fedmepd = settings("fedmepd", rounds=2, calibration={"enabled": False}, personalization={"patience": 0})
    assert_same_as_fedmepd(tiny, tmp_path, settings("fedper", rounds=2), fedmepd)


def freeze(*beginnings: str):
    """Parts of a network have no gradient: Adam leaves them alone."""

    def change(network) -> None:
        for key, value in network.named_parameters():
            if key.startswith(beginnings):
                value.grad = None

    return change


def test_fedrep(tiny, tmp_path) -> None:
    """Site-1 trains its decoder on the first of two batches and its encoders on the second, site-2 both on its only."""
    of = settings("fedrep", rounds=2)
    everybody = parties(tiny, of)
    start, whole = everybody["fusion"].state(), {}
    fusion = everybody["fusion"]
    fusion.train(0)
    whole = fusion.state()
    for number in (1, 2):
        for name in SITES:
            party = everybody[name]
            hand_out(whole, party, "encoders.")
            batches = list(party.batches.epoch(number))
            order = {"site-1": [0, 1], "site-2": [0, 0]}[name]
            assert len(batches) == len(set(order))
            own, party.batches = party.batches, Fixed([batches[place] for place in order])
            steps = iter([freeze("encoders."), freeze("decoder.", "auxiliary.")])
            party.train(number, change_gradients=lambda network, steps=steps: next(steps)(network))
            party.batches = own
        average(whole, {name: everybody[name] for name in SITES}, lambda party: 1, "encoders.")
        fusion.load({key: value for key, value in whole.items() if not key.startswith("auxiliary.")})
        fusion.train(number)
        whole = fusion.state()
    play(*make(tiny, of, tmp_path), 2)
    near(server_state(tmp_path)["state"], whole, start)
    for name in SITES:
        near(dict(site_state(tmp_path, name, 2)["network"]), everybody[name].state(), start)


class Fixed:
    """Batches that are the same in every epoch."""

    def __init__(self, batches: list):
        self.batches = batches

    def epoch(self, number: int):
        return iter(self.batches)
