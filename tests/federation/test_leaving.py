"""What leaves a site of few cases, or one that does not allow everything; and crops that nobody else can repeat."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import torch

from fedmepd.data.batches import TrainingBatches
from fedmepd.data.training_images import ImageMeasures
from fedmepd.disclosure import Allow, Disclosure
from fedmepd.errors import CheckpointError, FedMEPDError, SettingsError
from fedmepd.federation.exchange import Payload
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.kept_secret import kept_secret
from fedmepd.federation.server import FederationServer
from fedmepd.federation.site import FederationSite
from fedmepd.site_limits import Limits
from fedmepd.training.checkpoints import describe, trained_with
from tests.federation.drive import CPU, make_server, same, site_state
from tests.tiny import SITES, never, settings

NAME = "site-1"  # 3 training cases, 1 validation case, 2 test cases
EVERY_ROUND = {"evaluation": {"window": 24, "every": 1}, "rounds": 1}


def federation(tiny, folder: Path, of, **decided) -> tuple[FederationServer, dict[str, FederationSite]]:
    """A server and two sites, all of whom decide the same."""
    fusion = FusionSite(of, tiny.data("fusion", of), folder / "server" / "fusion", CPU, **decided)
    server = FederationServer(of, fusion, folder / "server", folder / "results")
    sites = {name: FederationSite(name, of, tiny.data(name, of), folder / name, CPU, **decided) for name in SITES}
    for site in sites.values():
        server.register(site.profile())
    server.start(never)
    return server, sites


def run(server: FederationServer, sites: dict[str, FederationSite]) -> tuple[dict, dict]:
    """One round and the final test; returns the updates' reports and the results."""
    server.begin_round()
    reports = {}
    for name, site in sites.items():
        update = site.train(server.payload(name), never)
        reports[name] = update.report
        server.accept(name, update)
    server.figures = server.finish_round(never)
    for name, site in sites.items():
        server.accept_test(name, site.test(server.test_payload(name), never))
    return reports, server.finish(never)


@pytest.fixture(scope="module")
def careful(tiny, tmp_path_factory):
    """A federation whose sites tell no mean over fewer than three cases: none has as many to validate or to test."""
    folder = tmp_path_factory.mktemp("careful")
    server, sites = federation(tiny, folder, settings(**EVERY_ROUND), disclosure=Disclosure(3))
    reports, results = run(server, sites)
    return folder, server, sites, reports, results


def test_no_mean_over_few_cases_is_in_any_report(careful) -> None:
    _, _, sites, reports, _ = careful
    assert {name: report["validation"] for name, report in reports.items()} == dict.fromkeys(SITES)
    # Site 1 trains on three cases, site 2 on two.
    assert set(reports["site-1"]["losses"]) == {"total", "segmentation", "regions", "auxiliary"}
    assert reports["site-2"]["losses"] == {} and reports["site-2"]["figures"] == {}


def test_none_is_in_the_results_the_curves_or_tensorboard(careful) -> None:
    folder, server, _, _, results = careful
    for entry in (results["server"], *results["sites"]):
        assert entry["validation"] is None and entry["test"] is None
        assert entry["untested"] == "the site has cases of fewer patients for it than its min_count"
    assert not [tag for tag in server.figures if "dice" in tag or "mdsc" in tag]
    assert not [tag for tag in server.figures if tag.startswith("site-2/loss")]
    text = (folder / "results" / "results.json").read_text() + json.dumps(server.histories())
    assert '"dice": {' not in text
    # Neither is it in what the server keeps, or in the model that it hands out.
    assert "dice" not in json.dumps(server._records.state())


def test_the_site_itself_still_selects_its_best_model_and_sees_its_scores(careful) -> None:
    folder, _, _, _, _ = careful
    for name in SITES:
        own = json.loads((folder / name / "site.json").read_text())
        assert own["history"]["validation"][0]["mdsc"] >= 0 and own["test"]["dice"].keys() == {"WT", "TC", "ET"}
        assert own["history"]["rounds"][0]["total"] > 0
        assert (folder / name / "model_best.pt").is_file()
    # The server, which is told no score, keeps and tests the last model.
    assert not (folder / "server" / "global_best.pt").exists() and (folder / "server" / "global_last.pt").is_file()


def test_the_global_model_tells_no_patients_measures(careful, tiny, tmp_path) -> None:
    """A median over three cases is one of them: by its brain's volume in microlitres it would be known."""
    about = describe(careful[0] / "server" / "global_last.pt")["about"]
    exact = tiny.data("fusion").images
    assert trained_with(about) == exact.coarse() != exact
    rounded = ImageMeasures((0.9375, 1.0, 1.25), 1456.7, {"T2": (-1.26, 0.04, 0.55, 1.449)}).coarse()
    assert rounded == ImageMeasures((0.94, 1.0, 1.25), 1500.0, {"T2": (-1.3, 0.0, 0.6, 1.4)})
    assert "its owner keeps the scores" in (careful[0] / "server" / "model_card.md").read_text()
    few = FusionSite(settings(), tiny.data("fusion"), tmp_path, CPU, disclosure=Disclosure(4))
    assert few.images == ImageMeasures()


def test_the_loss_of_a_step_is_not_on_the_console(careful) -> None:
    for site in careful[2].values():
        assert "loss" not in site.stats()
    open_site = FederationSite(NAME, settings(), careful[2][NAME].data, careful[0] / "open", CPU)
    open_site._live = {"phase": "training", "loss": 1.5}
    assert open_site.stats() == {"phase": "training", "loss": 1.5}


def test_nor_is_that_of_the_fusion_training(careful) -> None:
    server = careful[1]
    steps: list[tuple[int, float | None]] = []
    server._fusion.fuse(server._method.weights, 1, never, lambda step, loss: steps.append((step, loss)))
    # Three cases in batches of two.
    assert steps == [(1, None), (2, None)]
    assert "loss" not in server.stats()


def test_a_job_cannot_lower_the_floor_of_the_anchors(tiny, tmp_path) -> None:
    """The job says one case; the fusion site has three, and no cluster of three cases but one a class."""
    of = settings(calibration={"anchor_cases": 1, "anchors_per_class": 3}, rounds=1)
    open_site = FusionSite(of, tiny.data("fusion", of), tmp_path / "open", CPU)
    floor = FusionSite(of, tiny.data("fusion", of), tmp_path / "floor", CPU, disclosure=Disclosure(3))
    none = FusionSite(of, tiny.data("fusion", of), tmp_path / "none", CPU, disclosure=Disclosure(4))
    weights = make_server(tiny, of, tmp_path)._method.weights
    counts = {}
    for name, site in {"open": open_site, "floor": floor, "none": none}.items():
        counts[name] = len(site.fuse(weights, 0, never).extras.get("anchors.1", ()))
    # Three cases of each of four classes at most: three clusters of one case each, or one of three.
    assert counts["open"] > 4 >= counts["floor"] > 0 == counts["none"]


CLOSED = Allow(
    losses=False,
    validation_scores=False,
    test_scores=False,
    case_scores=False,
    durations=False,
    memory=False,
    anchors=False,
    live=False,
    model=False,
    model_scores=False,
)


def test_a_federation_whose_sites_allow_nothing_goes_on(tiny, tmp_path) -> None:
    of = settings(**EVERY_ROUND)
    server, sites = federation(tiny, tmp_path, of, disclosure=Disclosure(1, CLOSED), **{"case_scores": "share"})
    reports, results = run(server, sites)
    for report in reports.values():
        assert report["losses"] == report["figures"] == {}
        kept = ("validation", "train_seconds", "validation_seconds", "seconds", "peak_mib")
        assert {key: report[key] for key in kept} == dict.fromkeys(kept)
    assert results["status"] == "finished"
    assert [entry["rounds_taken"] for entry in results["sites"]] == [[1], [1]]
    assert {entry["untested"] for entry in results["sites"]} == {
        "the site's allow, or its differential privacy, says no"
    }
    assert server._method.anchors == {} and all(site.stats() == {} for site in sites.values())
    for give in (sites[NAME].give_model, lambda: sites[NAME].test_model(None, never)):
        sites[NAME].cross_site = "share"
        with pytest.raises(FedMEPDError, match="allow.model(_scores)? of the site is false"):
            give()


def anchors_of(payload: Payload, rows: int) -> Payload:
    """What a server might send to take a site's memory: attention has a number for each anchor at each voxel."""
    sent = {f"anchors.{level}": torch.zeros(rows, 4 * 2 ** (level - 1)) for level in (1, 2, 3, 4)}
    return Payload(payload.round, payload.tensors | sent)


@pytest.fixture(scope="module")
def payload(tiny, tmp_path_factory) -> Payload:
    """What a server sends site 1 for round 1."""
    server = make_server(tiny, settings(), tmp_path_factory.mktemp("server"))
    server.register(FederationSite(NAME, settings(), tiny.data(NAME), tmp_path_factory.mktemp("site"), CPU).profile())
    server.start(never)
    server.begin_round()
    return server.payload(NAME)


def test_a_hostile_server(tiny, tmp_path, payload) -> None:
    limits = Limits(rounds=3)
    site = FederationSite(NAME, settings(), tiny.data(NAME), tmp_path, CPU, limits=limits)
    with pytest.raises(FedMEPDError, match=r"anchors of level \d have shape \(20000, \d+\): expected 1 to 8 rows"):
        site.train(anchors_of(payload, 20_000), never)
    with pytest.raises(SettingsError, match="round is 1000000 in the job, limits.rounds is 3 at this site"):
        site.train(Payload(1_000_000, payload.tensors), never)
    assert not list(tmp_path.glob("state_*"))


def test_a_round_ends_after_the_sites_own_time(tiny, tmp_path, payload) -> None:
    site = FederationSite(NAME, settings(), tiny.data(NAME), tmp_path, CPU, limits=Limits(task_seconds=1e-3))
    with pytest.raises(SettingsError, match="it took longer than limits.task_seconds, 0.001 at this site"):
        site.train(payload, never)


# The secret


def crops(tiny, secret: tuple[str, ...]) -> list[torch.Tensor]:
    of = settings(augmentation={"flips": True})
    batches = TrainingBatches(tiny.data(NAME, of).train, of, (NAME,), tiny.machine.cache / "prepared", secret=secret)
    return [batch.images for batch in batches.epoch(1)]


def test_crops_follow_from_the_jobs_seed_only_without_a_secret(tiny) -> None:
    assert same(crops(tiny, ()), crops(tiny, ()))
    assert same(crops(tiny, ("a",)), crops(tiny, ("a",)))
    assert not same(crops(tiny, ("a",)), crops(tiny, ())) and not same(crops(tiny, ("a",)), crops(tiny, ("b",)))


def trained(tiny, folder: Path, payload: Payload, secret: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The update of a site, or of somebody who has its cases and repeats its round."""
    site = FederationSite(NAME, settings(), tiny.data(NAME), folder, CPU, secret=secret)
    return site.train(Payload(payload.round, dict(payload.tensors)), never).tensors


def test_a_server_that_has_the_case_cannot_repeat_the_round(tiny, tmp_path, payload) -> None:
    """The attack: who suspects that a patient is in the training repeats it, and compares the update bit by bit."""
    plain = trained(tiny, tmp_path / "site", payload, ())
    assert same(plain, trained(tiny, tmp_path / "server repeats", payload, ()))
    secret = kept_secret(tmp_path / "secretive")
    guarded = trained(tiny, tmp_path / "secretive", payload, secret)
    assert not same(guarded, plain)
    # The site itself goes on with the same bits, in a later process too.
    assert same(guarded, trained(tiny, tmp_path / "again", payload, kept_secret(tmp_path / "secretive")))
    state = json.dumps(sorted(site_state(tmp_path, "secretive", 1)), default=str)
    assert secret[0] not in state


def test_the_secret_is_drawn_once_and_only_its_owner_reads_it(tmp_path) -> None:
    first = kept_secret(tmp_path / "site")
    file = tmp_path / "site/secret.json"
    assert kept_secret(tmp_path / "site") == first != kept_secret(tmp_path / "other")
    assert len(first) == 1 and len(bytes.fromhex(first[0])) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text('{"secret": "short"}')
    with pytest.raises(CheckpointError, match="is damaged: remove it"):
        kept_secret(tmp_path / "site")
