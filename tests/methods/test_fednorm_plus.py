"""FedNorm+: what a modality has of its own in the network, and a federation against plain loops."""

from __future__ import annotations

import pytest
import torch

from fedmepd.errors import SettingsError
from fedmepd.job_settings import make_settings
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS
from fedmepd.training.checkpoints import load_model
from tests.federation.drive import fusion_state, make, play, server_state, site_state
from tests.methods.plain import assert_survives_a_kill, average, cases, hand_out, near, parties
from tests.tiny import SITES, never, settings

SHARED = {"shared_encoder": True, "affine": True, "modality_norms": True}


def test_a_modality_has_norms_of_its_own() -> None:
    """The same as an encoder for each modality, with equal convolutions and the modality's scales and shifts."""
    generator = torch.Generator().manual_seed(0)
    one = FedMEPDNet(BRATS, ("FLAIR", "T2"), 4, **SHARED).start(1)
    for key, value in one.state_dict().items():
        if key.startswith("encoders.") and not key.startswith("encoders.shared."):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    apart = FedMEPDNet(BRATS, ("FLAIR", "T2"), 4, affine=True).start(1)
    theirs = dict(one.state_dict())
    weights = {}
    for key in apart.state_dict():
        if key.startswith("encoders."):
            _, modality, rest = key.split(".", 2)
            own = ".norm." in rest
            weights[key] = theirs[
                f"encoders.{modality}.{rest.replace('.norm.', '.')}" if own else f"encoders.shared.{rest}"
            ]
        else:
            weights[key] = theirs[key]
    apart.load_state_dict(weights)
    images = torch.randn(1, 2, 16, 16, 16, generator=generator)
    found, expected = (net.training_outputs(images, ("FLAIR", "T2")) for net in (one, apart))
    torch.testing.assert_close(found.segmentation, expected.segmentation)
    torch.testing.assert_close(found.auxiliary, expected.auxiliary)
    assert not torch.allclose(*(one.encode(images[:, :1], (name,))[0][0] for name in ("FLAIR", "T2")))
    # Every normalisation of an encoder has one set for each modality.
    assert sum(key.startswith("encoders.T2.") for key in theirs) == 2 * 12


def test_settings_that_need_each_other() -> None:
    with pytest.raises(SettingsError, match="modality_norms needs shared_encoder true and affine true"):
        make_settings("phantom", {"method": "fedavg", "network": {"modality_norms": True, "affine": True}})
    with pytest.raises(SettingsError, match="network.affine"):
        make_settings("phantom", {"method": "fednorm_plus", "network": {"affine": False}})


def test_fednorm_plus(tiny, tmp_path) -> None:
    """Convolutions and decoders over everybody by cases, a modality's norms over those who have it."""
    of = settings("fednorm_plus", rounds=2)
    everybody = parties(tiny, of)
    start, whole = everybody["fusion"].state(), everybody["fusion"].state()
    server, sites = make(tiny, of, tmp_path)
    for number in (1, 2):
        for party in everybody.values():
            hand_out(whole, party)
            party.train(number)
        average(whole, everybody, cases)
        play(server, sites, number)
        near(server_state(tmp_path)["state"], whole, start)
        # Goes on from what is kept, so that the rounding errors of two rounds do not add up.
        whole = server_state(tmp_path)["state"]
        kept = {name: site_state(tmp_path, name, number) for name in SITES} | {"fusion": fusion_state(tmp_path)}
        for name, party in everybody.items():
            party.adam.load_state_dict(kept[name]["optimizer"])
    # Scales begin alike and do not stay so.
    key = "levels.2.1.weight"
    assert not torch.equal(whole[f"encoders.FLAIR.{key}"], whole[f"encoders.T2.{key}"])
    server.begin_round()
    sent = server.payload("site-1").tensors
    assert {key.split(".")[1] for key in sent if key.startswith("encoders.")} == {"shared", *SITES["site-1"]}
    # A model says how its normalisations are made, and is built so again.
    sites["site-1"].test(server.test_payload("site-1"), never)
    model = load_model(tmp_path / "site-1/model_best.pt")
    assert model.modality_norms and "encoders.FLAIR.levels.2.1.weight" in model.state_dict()


@pytest.mark.slow
def test_survives_a_kill(tiny, tmp_path) -> None:
    assert_survives_a_kill(tiny, settings("fednorm_plus", rounds=2), tmp_path)
