"""A server that asks for more than the method does: parts of the network that are to stay do not leave."""

from __future__ import annotations

import pytest
import torch

from fedmepd import methods
from fedmepd.errors import FedMEPDError, SettingsError
from fedmepd.federation import agreed_weights
from fedmepd.federation.exchange import FusionTask, Payload
from fedmepd.federation.fusion_desk import FusionDesk
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.open_round import TensorStore
from fedmepd.networks.build import build_network
from fedmepd.site_limits import HIGHEST, Limits
from fedmepd.training.checkpoints import describe
from tests.federation.drive import CPU, make_site
from tests.tiny import MODALITIES, never, settings

NAME = "site-1"


# What each keeps at the site: all; decoder and auxiliary decoder; normalisation; decoder.
@pytest.mark.parametrize("method", ["local", "fedper", "fedbn", "fedmema"])
def test_a_site_gives_no_part_that_its_method_keeps(method, tiny, tmp_path) -> None:
    of = settings(method)
    site = make_site(tiny, of, tmp_path, NAME)
    everything = dict(methods.find(method).at_site(of).network(MODALITIES[NAME]).start(0).state_dict())
    with pytest.raises(FedMEPDError, match="site-1: .* does not leave with") as refused:
        site.train(Payload(1, everything), never)
    assert methods.find(method).title in refused.value.public
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("method", ["fedmepd", "fedmema"])
@pytest.mark.parametrize(
    "forged",
    [
        {"patience.decoder.made_up": torch.zeros(4, dtype=torch.uint8)},
        {"patience.decoder.classify": torch.zeros(5, dtype=torch.uint8)},
        {"patience.decoder.classify": torch.tensor(0, dtype=torch.uint8)},
        {"patience.x": torch.zeros(0, dtype=torch.uint8)},
    ],
)
def test_a_server_makes_up_no_filters(method, forged) -> None:
    """The site's curves keep the number of personal filters of each convolution, by its name."""
    at_site = methods.find(method).at_site(settings(method))
    network = at_site.network(MODALITIES[NAME]).start(0)
    at_site.take_in(network, {"patience.decoder.classify": torch.ones(4, dtype=torch.uint8)}, 1)
    with pytest.raises(FedMEPDError, match="which is of no convolution of this network"):
        at_site.take_in(network, forged, 1)


@pytest.mark.slow
def test_the_best_model_survives_a_server_that_begins_again(tiny, tmp_path) -> None:
    of = settings("fedavg", rounds=3, evaluation={"every": 1})
    weights = dict(build_network(of, MODALITIES[NAME]).start(0).state_dict())
    site = make_site(tiny, of, tmp_path, NAME)
    best = max(site.train(Payload(number, dict(weights)), never).report["validation"]["mdsc"] for number in (1, 2))
    path = tmp_path / NAME / "model_best.pt"
    for again in (site, make_site(tiny, of, tmp_path, NAME)):
        # Everything is background.
        useless = {key: value * 0 for key, value in weights.items()} | {
            "decoder.classify.bias": torch.tensor([100.0, 0.0, 0.0, 0.0])
        }
        assert again.train(Payload(1, useless), never).report["validation"]["mdsc"] < best
        assert describe(path)["about"]["scores"]["mdsc"] == best


@pytest.mark.parametrize("method", methods.names())
def test_what_an_honest_server_sends_may_come_back(method, tmp_path) -> None:
    of = settings(method)
    weights = dict(build_network(of).start(0).state_dict())
    server = methods.find(method).at_server(of, weights, TensorStore(tmp_path))
    server.join(NAME, MODALITIES[NAME])
    at_site = methods.find(method).at_site(of)
    given = at_site.give(at_site.network(MODALITIES[NAME]).start(0), server.send(NAME))
    assert set(given) <= agreed_weights.of_site(of, NAME, MODALITIES[NAME])
    assert set(server.weights) <= agreed_weights.of_fusion_site(of)


def test_a_volume_of_too_many_windows_is_refused_before_it_is_segmented(tiny, tmp_path) -> None:
    """A volume may be larger than the one by which a job is judged before training."""
    of = settings("local", rounds=1, evaluation={"window": 16, "overlap": 0.9})
    site = make_site(tiny, of, tmp_path, NAME)
    fusion = FusionSite(of, tiny.data("fusion", of), tmp_path / "fusion", CPU, limits=Limits(windows=1))
    site.limits = Limits(windows=1)
    told = "x .* voxels into .* windows, limits.windows is 1 at this site"
    with pytest.raises(SettingsError, match=told):
        site.train(Payload(1), never)
    site.limits = HIGHEST
    site.train(Payload(1), never)
    site.limits = Limits(windows=1)
    site.cross_site = "share"
    copy = site.give_model()
    weights = fusion.weights()
    for work in (
        lambda: site.test(Payload(1), never),
        lambda: site.test_model(copy, never),
        lambda: fusion.validate(weights, 1, never),
        lambda: fusion.test_copy(copy, 1, never),
    ):
        with pytest.raises(SettingsError, match=told):
            work()


@pytest.mark.parametrize("kind", ["fuse", "validate", "test"])
def test_the_auxiliary_decoder_stays_at_the_fusion_site(kind, tiny, tmp_path) -> None:
    of = settings("fedmepd")
    site = FusionSite(of, tiny.data("fusion", of), tmp_path, CPU)
    names = [key for key in site.weights() if key.startswith("auxiliary.")]
    assert names
    task = FusionTask(kind, 0, names, site.version, {})
    with pytest.raises(FedMEPDError, match="auxiliary.* does not leave with FedMEPD"):
        FusionDesk(site, half_precision=True).do(task, never)
