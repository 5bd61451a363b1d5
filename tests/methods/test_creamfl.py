"""CreamFL as a whole against plain loops, on stand-ins of phantoms; patients' images are refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fedmepd.data.batches import evaluation_cases
from fedmepd.data.phantom import RECIPE
from fedmepd.data.site import open_fusion_data, open_site_data
from fedmepd.errors import DataError, FedMEPDError
from fedmepd.federation.fusion_desk import FusionDesk
from fedmepd.federation.fusion_elsewhere import FusionElsewhere
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.in_process import run_in_process
from fedmepd.federation.server import FederationServer
from fedmepd.methods.parts.representations import agreed, contrast, of_others
from fedmepd.seeds import derive_seed
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import load_tensors
from tests.data.phantoms import stand_in
from tests.federation.drive import CPU, fusion_state, make, make_site, play, same, server_state, site_state
from tests.federation.slow import Party
from tests.methods.plain import assert_survives_a_kill, near
from tests.tiny import SITES as TINY_SITES
from tests.tiny import settings

ALL = ("FLAIR", "T1ce", "T1", "T2")
SITES = ("site-1", "site-2")
ITEMS, SIZE = 3, 5


def of_stand_ins(**changes):
    data = {"phantom": True, "train": 0.125, "validation": 0.0625}
    return settings(
        "creamfl",
        data=data,
        contrast={"items": ITEMS, "dimension": SIZE, "weight": 2.0, "distillation": 3.0},
        **changes,
    )


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> SimpleNamespace:
    """A machine without a data folder, whose phantoms are there already; stands in for tests.tiny.Tiny."""
    cache = tmp_path_factory.mktemp("cache")
    for site in ("fusion", *SITES):
        stand_in(cache / "phantoms" / f"recipe-{RECIPE}-seed-0", site, 0)
    machine = SiteSettings(cache=cache, device="cpu")

    def data(name, of):
        return open_fusion_data("", of, machine) if name == "fusion" else open_site_data(name, of, machine)

    return SimpleNamespace(machine=machine, data=data)


class Member(Party):
    """A participant with its projections, by hand."""

    def __init__(self, of, data, public):
        super().__init__(of, data)
        self.linear = {}
        for name in data.modalities:
            random = torch.Generator().manual_seed(derive_seed(of.seed, "start", "projection", name))
            weight = torch.zeros(SIZE, 32).normal_(std=32**-0.5, generator=random)
            self.linear[name] = [weight.requires_grad_(), torch.zeros(SIZE, requires_grad=True)]
        self.second = torch.optim.Adam(
            [value for pair in self.linear.values() for value in pair], weight_decay=of.training.weight_decay
        )
        cases = [case for case in public.train if len(case.modalities) == 4][:ITEMS]
        self.crops = []
        for case in evaluation_cases(cases, of, public.cache):
            image = torch.zeros(4, 16, 16, 16)
            image[:, 2:14, 2:14, 2:14] = case.images[0]
            self.crops.append(image)

    def vector(self, item: int, name: str) -> torch.Tensor:
        feature = self.network.encode(self.crops[item][None, ALL.index(name) : ALL.index(name) + 1], (name,))[3][0]
        weight, bias = self.linear[name]
        found = weight @ feature[0].flatten(1).mean(dim=1) + bias
        return found / found.norm()

    def vectors(self) -> dict[str, list[torch.Tensor]]:
        with torch.no_grad():
            return {name: [self.vector(item, name) for item in range(ITEMS)] for name in self.linear}

    def take_over(self, kept: dict) -> None:
        """Goes on from a kept state, so that the rounding errors of the rounds before do not add up."""
        self.load(dict(kept["network"]))
        self.adam.load_state_dict(kept["optimizer"])
        with torch.no_grad():
            for name, (weight, bias) in self.linear.items():
                weight.copy_(kept["method"]["projections"][f"of.{name}.weight"])
                bias.copy_(kept["method"]["projections"][f"of.{name}.bias"])
        self.second.load_state_dict(kept["method"]["optimizer"])

    def compare(self, number: int, loss) -> None:
        """A pass over the public cases, two a step; the loss is of a case and a modality."""
        for optimizer in (self.adam, self.second):
            optimizer.param_groups[0]["lr"] = self.rate(number, self.settings.rounds)
        for first in range(0, ITEMS, 2):
            items = range(first, min(first + 2, ITEMS))
            terms = [loss(item, name, self.vector(item, name)) for item in items for name in self.linear]
            self.adam.zero_grad()
            self.second.zero_grad()
            (sum(terms) / len(terms)).backward()
            self.adam.step()
            self.second.step()


def counterpart(vectors: dict[str, list[torch.Tensor]], name: str, item: int) -> torch.Tensor:
    """The mean over the other modalities, of length 1."""
    total = sum(vectors[other][item] for other in vectors if other != name)
    return total / total.norm()


def test_creamfl(phantoms, tmp_path) -> None:
    """Round 0 and two more."""
    of = of_stand_ins(rounds=2)
    public = phantoms.data("fusion", of)
    fusion = Member(of, public, public)
    sites = {name: Member(of, phantoms.data(name, of), public) for name in SITES}
    start = fusion.state()
    server, members = make(phantoms, of, tmp_path, SITES)
    fusion.train(0)
    server_vectors = fusion.vectors()
    for number in (1, 2):
        answers = {}
        for name, site in sites.items():
            before = site.vectors()
            site.train(number)

            def of_site(item, modality, own, before=before, server_vectors=server_vectors):
                logits = torch.stack([own @ counterpart(server_vectors, modality, j) for j in range(ITEMS)]) / 0.5
                inter = -logits.log_softmax(dim=0)[item]
                pair = torch.stack([own @ server_vectors[modality][item], own @ before[modality][item]]) / 0.5
                return 2.0 * (inter - pair.log_softmax(dim=0)[0])

            site.compare(number, of_site)
            answers[name] = site.vectors()
        target = {}
        for modality in ALL:
            owners = [name for name in SITES if modality in answers[name]]
            for item in range(ITEMS):
                scores = []
                for name in owners:
                    own = answers[name][modality][item]
                    logits = torch.stack([own @ counterpart(server_vectors, modality, j) for j in range(ITEMS)])
                    scores.append(logits.log_softmax(dim=0)[item])
                weights = torch.stack(scores).softmax(dim=0)
                target[modality, item] = sum(
                    weight * answers[name][modality][item] for weight, name in zip(weights, owners, strict=True)
                )
        fusion.compare(number, lambda item, name, own, target=target: 3.0 * ((own - target[name, item]) ** 2).mean())
        fusion.train(number)
        server_vectors = fusion.vectors()
        figures = play(server, members, number)
        near(server_state(tmp_path)["state"], fusion.state(), start)
        fusion.take_over(fusion_state(tmp_path))
        for name in SITES:
            kept = site_state(tmp_path, name, number)
            near(kept["network"], sites[name].state(), start)
            for modality, (weight, _) in sites[name].linear.items():
                torch.testing.assert_close(
                    kept["method"]["projections"][f"of.{modality}.weight"], weight.detach(), rtol=0.01, atol=1e-4
                )
            assert figures[f"{name}/contrast"] > 0
            sites[name].take_over(kept)
    assert figures["server/distillation"] > 0
    server.begin_round()
    [(key, sent)] = server.payload("site-1").tensors.items()
    assert key == "extra.vectors" and sent.shape == (4, ITEMS, SIZE)
    for place, modality in enumerate(ALL):
        torch.testing.assert_close(sent[place], torch.stack(server_vectors[modality]), rtol=0.02, atol=0.02)


def test_no_weights_travel(phantoms, tmp_path) -> None:
    server, members = make(phantoms, of_stand_ins(rounds=1), tmp_path, SITES)
    server.begin_round()
    for name, site in members.items():
        update = site.train(server.payload(name), lambda: False)
        shape = (len(site.data.modalities), ITEMS, SIZE)
        assert {key: value.shape for key, value in update.tensors.items()} == {"extra.vectors": shape}
        torch.testing.assert_close(update.tensors["extra.vectors"].norm(dim=2), torch.ones(shape[:2]))
        # A pass over the public cases is work, and the report counts it.
        assert update.report["steps"] == 1 + 2


def test_contrast_in_simple_cases() -> None:
    """Vectors along the axes: what is right costs little, what is wrong much."""
    axes = torch.eye(3)
    places = torch.arange(3)
    right = contrast(axes, axes.roll(1, 0), axes, axes, places, 0.5)
    wrong = contrast(axes.roll(1, 0), axes.roll(1, 0), axes, axes, places, 0.5)
    e2 = torch.tensor(2.0).exp()
    torch.testing.assert_close(right, (1 + 2 / e2).log() + (1 + 1 / e2).log())
    torch.testing.assert_close(wrong, (2 + e2).log() + (1 + e2).log())
    # The clearer of two says more; of one alone, its own vectors stay.
    torch.testing.assert_close(agreed([axes], axes), axes)
    both = agreed([axes, axes.roll(1, 0)], axes)
    share = (torch.tensor(1.0).exp() / (torch.tensor(1.0).exp() + 1)).item()
    torch.testing.assert_close(both, share * axes + (1 - share) * axes.roll(1, 0))
    torch.testing.assert_close(of_others(torch.stack([axes, axes])), torch.stack([axes, axes]))


def test_patients_images_are_refused(tiny, tmp_path) -> None:
    of = settings("creamfl")
    reason = "CreamFL is for phantoms alone: every site would need the images of the fusion site's patients"
    with pytest.raises(FedMEPDError, match=reason):
        FusionSite(of, tiny.data("fusion", of), tmp_path / "fusion", CPU)
    with pytest.raises(FedMEPDError, match=f"site-1: {reason}"):
        make_site(tiny, of, tmp_path, "site-1")
    with pytest.raises(FedMEPDError, match=reason) as error:
        run_in_process(of, tiny.machine, tmp_path / "run", list(TINY_SITES))
    # Nothing is trained, and what leaves the site says why.
    assert not list(tmp_path.rglob("*.pt")) and reason in error.value.public


def test_more_public_cases_than_there_are(phantoms, tmp_path) -> None:
    of = settings("creamfl", data={"phantom": True, "train": 0.125, "validation": 0.0625}, contrast={"items": 40})
    with pytest.raises(DataError, match="contrast.items = 40: the fusion site has 6 training cases"):
        FusionSite(of, phantoms.data("fusion", of), tmp_path / "fusion", CPU)


@pytest.mark.slow
def test_the_fusion_site_elsewhere(phantoms, tmp_path) -> None:
    """The same bits as in the server's process."""
    here, members = make(phantoms, of_stand_ins(rounds=1), tmp_path / "here", SITES)
    play(here, members, 1)
    of = of_stand_ins(rounds=1, fusion={"site": "site-1"})
    members = {name: make_site(phantoms, of, tmp_path / "there", name) for name in SITES}
    desk = FusionDesk(FusionSite(of, phantoms.data("fusion", of), tmp_path / "there/fusion", CPU), False)
    fusion = FusionElsewhere(of, members["site-1"].profile(desk.site.data.counts()), desk.do)
    there = FederationServer(of, fusion, tmp_path / "there/server", tmp_path / "there/results")
    for member in members.values():
        there.register(member.profile())
    there.start(lambda: False)
    play(there, members, 1)
    states = [load_tensors(tmp_path / place / "server/server_state.pt")["method"] for place in ("here", "there")]
    assert same(*states)
    networks = [
        {name: site_state(tmp_path / place, name, 1)["network"] for name in SITES} for place in ("here", "there")
    ]
    assert same(*networks)


@pytest.mark.slow
def test_survives_a_kill(phantoms, tmp_path) -> None:
    assert_survives_a_kill(phantoms, of_stand_ins(rounds=2), tmp_path)
