from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedmepd.errors import FedMEPDError, UpdateRefused
from fedmepd.federation.cross_site import CrossSiteTest, copy_of, network_of
from fedmepd.federation.exchange import ModelCopy, SiteProfile
from fedmepd.federation.in_process import run_in_process
from fedmepd.networks.network import FedMEPDNet
from fedmepd.storage import load_tensors
from fedmepd.tasks.brats import BRATS
from fedmepd.training.checkpoints import load_model
from tests.evaluation import runs
from tests.federation.drive import make_site
from tests.tiny import SITES, never, settings

CASES = {"train": 3, "validation": 1, "test": 2}
ALL = ("FLAIR", "T1ce", "T1", "T2")


def profile(name: str, modalities: tuple[str, ...], agrees: str, test: int = 2) -> SiteProfile:
    return SiteProfile(name, modalities, CASES | {"test": test}, "folder", agrees)


def matrix() -> CrossSiteTest:
    sites = [
        profile("site-1", ("FLAIR", "T1ce"), "share"),
        profile("site-2", ("T2",), "share"),
        profile("site-3", ("FLAIR", "T2"), "test"),
        profile("site-4", ("FLAIR",), "none"),
        profile("site-5", ("FLAIR",), "share", test=0),
    ]
    return CrossSiteTest({site.name: site for site in sites}, profile("fusion", ALL, "share"), BRATS)


def report(dice: float = 0.5) -> dict:
    return {"test": runs.summary(dice, 2.0), "cases": 2}


def network(**options) -> FedMEPDNet:
    made = FedMEPDNet(BRATS, ("FLAIR", "T2"), 4, calibration={"residual": True, "dropout": 0.1}, **options).start(3)
    made.anchors = {level: torch.rand(3, 4 * 2 ** (level - 1)) for level in (1, 2, 3, 4)}
    return made.eval()


def test_who_tests_which_model() -> None:
    of = matrix()
    assert of.models() == ["server", "site-1", "site-2", "site-5"]
    assert of.targets("server") == ["site-1", "site-2", "site-3"]
    assert of.targets("site-1") == ["site-3", "server"] and of.sites_to_ask("site-1") == ["site-3"]
    assert of.targets("site-2") == ["site-3", "server"]
    assert of.targets("site-3") == of.targets("site-4") == []
    assert of.targets("site-5") == ["site-1", "site-3", "server"]


def test_every_cell_without_scores_says_why() -> None:
    of = matrix()
    of.accept("site-1", "site-3", report(0.6))
    of.accept("site-1", "server", {"test": None, "cases": 0})
    of.miss("site-2", "out of memory", "site-3")
    of.miss("server", "the server's disk is full")
    records = {name: {"test": report(0.9)["test"], "untested": None} for name in ("server", "site-1", "site-2")}
    records |= {"site-3": {"test": None, "untested": "no answer in time"}}
    cells = of.result(records | {name: {"test": None, "untested": None} for name in ("site-4", "site-5")})
    assert cells["site-1"]["site-3"] == {"modalities": ["FLAIR"], "reason": None} | report(0.6)
    assert cells["site-1"]["site-1"]["test"]["dice"]["WT"] == 0.9
    reasons = {
        ("site-1", "server"): "no test case with a modality in common",
        ("site-1", "site-2"): "no modality in common",
        ("site-1", "site-4"): "site-4 tests no model but its own",
        ("site-1", "site-5"): "site-5 has no test case",
        ("site-2", "site-3"): "out of memory",
        ("site-3", "site-1"): "site-3 does not share its model",
        ("site-3", "site-3"): "no answer in time",
        ("site-4", "site-4"): "not tested",
        ("site-5", "site-5"): "site-5 has no test case",
        ("server", "site-1"): "the server's disk is full",
    }
    for (model, site), reason in reasons.items():
        assert (cells[model][site]["test"], cells[model][site]["reason"]) == (None, reason), (model, site)


def test_model_that_came_without_an_encoder() -> None:
    of = matrix()
    of.arrived("server", ("T1", "T2"))
    of.arrived("site-1", ("FLAIR",))
    assert of.targets("server") == ["site-2", "site-3"]
    cells = of.result({})
    assert cells["server"]["site-1"]["reason"] == "no modality in common"
    assert cells["server"]["site-3"]["modalities"] == ["T2"] and cells["server"]["site-3"]["reason"] is None
    # At home it has them all.
    assert cells["site-1"]["server"]["modalities"] == ["FLAIR"]
    assert cells["site-1"]["site-1"]["modalities"] == ["FLAIR", "T1ce"]


def test_scores_that_are_none() -> None:
    of = matrix()
    with pytest.raises(UpdateRefused, match="report of site-3 refused: cases"):
        of.accept("site-1", "site-3", report() | {"cases": -1})
    with pytest.raises(UpdateRefused, match=r"report of site-3 refused: test\.mdsc"):
        of.accept("site-1", "site-3", {"test": runs.summary(0.5, 2.0) | {"mdsc": 1.5}, "cases": 2})
    assert of.targets("site-1") == ["site-3", "server"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_copy_segments_as_the_model_does(shared) -> None:
    model = network(shared_encoder=shared)
    copy = copy_of(model)
    assert not any(key.startswith("auxiliary") for key in copy.tensors)
    again = network_of(copy, settings(network={"shared_encoder": shared}))
    images = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(again(images, ("FLAIR", "T2")), model(images, ("FLAIR", "T2")))


def test_a_withheld_encoder_takes_its_modality_away() -> None:
    copy = copy_of(network())
    copy.tensors = {key: value for key, value in copy.tensors.items() if not key.startswith("encoders.T2")}
    assert network_of(copy, settings()).modalities == ("FLAIR",)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("decoder.classify.weight", None, r"decoder\.classify\.weight is missing"),
        ("decoder.classify.weight", torch.zeros(2, 2), r"decoder\.classify\.weight is missing, unknown"),
        ("decoder.classify.bias", torch.full((4,), torch.nan), r"decoder\.classify\.bias is missing, .*not finite"),
        ("decoder.secret", torch.zeros(2), r"decoder\.secret is missing, unknown"),
        ("anchors.1", torch.zeros(3, 5), r"anchors of level 1 have shape \(3, 5\)"),
        ("anchors.7", torch.zeros(3, 4), r"anchors are of the levels .*7"),
        # PyTorch cannot tell whether they are finite: an error at the server would end the job of all.
        ("decoder.classify.bias", torch.zeros(4).to(torch.float8_e4m3fn), r"decoder\.classify\.bias .* or kind"),
        ("decoder.classify.bias", torch.zeros(4, dtype=torch.complex64), r"decoder\.classify\.bias .* or kind"),
        ("anchors.1", torch.zeros(3, 4).to(torch.float8_e4m3fn), r"anchors of level 1 are torch\.float8_e4m3fn"),
    ],
)
def test_tensors_that_are_no_model(key, value, text) -> None:
    copy = copy_of(network())
    copy.tensors.pop(key, None)
    if value is not None:
        copy.tensors[key] = value
    with pytest.raises(UpdateRefused, match=text):
        network_of(copy, settings())


def test_no_encoder_at_all() -> None:
    copy = copy_of(network())
    with pytest.raises(UpdateRefused, match="no encoder of a known modality"):
        network_of(ModelCopy(("PET",), copy.tensors), settings())


@pytest.mark.parametrize("agrees", ["none", "test"])
def test_what_a_site_has_not_agreed_to_it_refuses_itself(agrees, tiny, tmp_path) -> None:
    site = make_site(tiny, settings(), tmp_path, "site-1")
    site.cross_site = agrees
    with pytest.raises(FedMEPDError, match=f"cross_site is '{agrees}', expected share") as refused:
        site.give_model()
    assert "site-1" not in refused.value.public
    if agrees == "none":
        with pytest.raises(FedMEPDError, match="cross_site is 'none', expected test or share"):
            site.test_model(copy_of(network()), never)
    else:
        assert site.test_model(copy_of(network()), never)["cases"] == 2


def test_the_matrix_of_a_run(tiny, tmp_path) -> None:
    """Every cell is what the model's file scores on the site's cases with the modalities that both have."""
    machine = tiny.machine.model_copy(update={"cross_site": "share"})
    of = settings(rounds=1, evaluation={"cross_site": True})
    results = run_in_process(of, machine, tmp_path, list(SITES))
    cells = results["cross_site"]
    assert {model: list(row) for model, row in cells.items()} == {
        model: ["site-1", "site-2", "server"] for model in ("server", "site-1", "site-2")
    }
    common = {
        ("site-1", "site-2"): ["T1ce"],
        ("server", "site-1"): ["FLAIR", "T1ce"],
        ("site-2", "server"): ["T1ce", "T2"],
    }
    for (model, site), modalities in common.items():
        assert cells[model][site]["modalities"] == modalities
    for entry in (results["server"], *results["sites"]):
        assert cells[entry["name"]][entry["name"]]["test"] == entry["test"]

    # By hand: the model's file, the case's images of the modalities in common, Dice counted voxel by voxel.
    from fedmepd.data.batches import evaluation_cases

    model = load_model(tmp_path / "site-1" / "model_best.pt")
    data = tiny.data("site-2", of)
    found = []
    for case in evaluation_cases(data.test, of, data.cache):
        place = case.modalities.index("T1ce")
        with torch.inference_mode():
            classes = model(case.images[:, [place]], ("T1ce",)).argmax(dim=1)[0]
        both = ((classes > 0) & (case.label > 0)).sum()
        found.append(float(2 * both / ((classes > 0).sum() + (case.label > 0).sum())))
    assert cells["site-1"]["site-2"]["test"]["dice"]["WT"] == pytest.approx(sum(found) / len(found), abs=1e-6)
    assert cells["site-1"]["site-2"]["cases"] == len(found) == 1

    # The run's state remembers it: a finished run that is started again has the same matrix.
    again = run_in_process(of, machine, tmp_path, list(SITES))
    assert again["cross_site"] == cells
    assert load_tensors(tmp_path / "server" / "server_state.pt")["cross_site"] == cells


def test_a_run_that_does_not_ask(finished) -> None:
    assert finished("fedmepd").results["cross_site"] is None


def test_made_up_cases_are_shared(tiny, tmp_path) -> None:
    site = make_site(tiny, settings(), tmp_path, "site-1")
    assert site.profile().cross_site == "none"
    made_up = replace(tiny.data("site-1"), source="phantom")
    assert type(site)("site-1", settings(), made_up, tmp_path, site.device).profile().cross_site == "share"
