from __future__ import annotations

import gc
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedmepd.errors import Aborted, CheckpointError, FedMEPDError, UpdateRefused
from fedmepd.federation.exchange import Payload, SiteProfile, Update
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.server import FederationServer
from fedmepd.federation.server_state import ServerState
from fedmepd.federation.site import FederationSite
from fedmepd.federation.timing import PHASES, Timing
from fedmepd.methods.parts.aggregation import Aggregation
from fedmepd.training.checkpoints import load_model
from tests.federation.drive import (
    Clock,
    assert_same_run,
    make,
    make_server,
    make_site,
    play,
    same,
    server_state,
)
from tests.tiny import COUNTS, MODALITIES, SITES, Tiny, never, settings

ROUNDS = 3


@pytest.fixture(scope="module")
def snapshots(tiny: Tiny, tmp_path_factory) -> dict[int, Path]:
    """Copies of a run's folder, which was never stopped, after some of its rounds."""
    folder = tmp_path_factory.mktemp("run")
    server, sites = make(tiny, settings(), folder)
    copies = {}
    for number in (0, 1, ROUNDS):
        play(server, sites, number)
        copies[number] = shutil.copytree(folder, tmp_path_factory.mktemp("after") / str(number))
    return copies


@pytest.fixture(scope="module")
def uninterrupted(snapshots: dict[int, Path]) -> Path:
    """Folder of a run that was never stopped."""
    return snapshots[ROUNDS]


@pytest.fixture
def resumed(tiny: Tiny, snapshots: dict[int, Path]):
    """Gives server and sites that go on after a round, in a folder of their own."""

    def after(number: int, folder: Path) -> tuple[FederationServer, dict[str, FederationSite]]:
        shutil.copytree(snapshots[number], folder, dirs_exist_ok=True)
        return make(tiny, settings(), folder)

    return after


@pytest.fixture
def started(resumed, tmp_path: Path) -> tuple[FederationServer, dict[str, FederationSite]]:
    """A server and its sites after round 0."""
    return resumed(0, tmp_path)


def answer(server: FederationServer, site: str, value: float = 0.001) -> Update:
    """An update that changes every weight by the same."""
    parts = {"encoders", "decoder"}
    payload = server.payload(site)
    tensors = {
        key: torch.full_like(tensor, value) for key, tensor in payload.tensors.items() if key.split(".")[0] in parts
    }
    seconds = {"train_seconds": 1.0, "validation_seconds": 0.0, "seconds": 1.0}
    report = {
        "cases": server.profiles[site].cases["train"],
        "losses": {},
        "figures": {},
        "steps": 1,
        "validation": None,
    } | seconds
    return Update(payload.round, tensors, report)


def test_something_became_personal(uninterrupted: Path) -> None:
    """Otherwise the comparisons below would say nothing of it."""
    for state in server_state(uninterrupted)["personalization"].values():
        counts = [(patience == 0).sum().item() for patience in state["patience"].values()]
        assert 0 < sum(counts) < sum(len(patience) for patience in state["patience"].values())


def test_resumed_after_every_round(started, tiny, tmp_path, uninterrupted) -> None:
    play(*started, 1)
    for until in range(2, ROUNDS + 1):
        play(*make(tiny, settings(), tmp_path), until)
    assert_same_run(tmp_path, uninterrupted, ROUNDS)


def test_order_of_the_sites(started, tmp_path, uninterrupted) -> None:
    play(*started, ROUNDS, backwards=True)
    assert_same_run(tmp_path, uninterrupted, ROUNDS)


def test_killed_before_its_state_was_written(resumed, tiny, tmp_path, uninterrupted) -> None:
    """The sites have finished round 2, the server has not: it asks them for that round once more."""
    server, sites = resumed(1, tmp_path)
    server.begin_round()
    for name, site in sites.items():
        server.accept(name, site.train(server.payload(name), never))
    play(*make(tiny, settings(), tmp_path), ROUNDS)
    assert_same_run(tmp_path, uninterrupted, ROUNDS)


def test_aborted_fusion_training(resumed, tiny, tmp_path, uninterrupted) -> None:
    server, sites = resumed(1, tmp_path)
    before = (tmp_path / "server" / "server_state.pt").read_bytes()
    server.begin_round()
    for name, site in sites.items():
        server.accept(name, site.train(server.payload(name), never))
    with pytest.raises(Aborted):
        server.finish_round(lambda: True)
    assert (tmp_path / "server" / "server_state.pt").read_bytes() == before
    play(*make(tiny, settings(), tmp_path), ROUNDS)
    assert_same_run(tmp_path, uninterrupted, ROUNDS)


def test_state_that_cannot_be_written(started, tmp_path, monkeypatch) -> None:
    server, _ = started
    before = (tmp_path / "server" / "server_state.pt").read_bytes()
    server.begin_round()
    server.accept("site-1", answer(server, "site-1"))
    monkeypatch.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(FedMEPDError, match="cannot write .*fusion/state_00001.pt.*No space left on device"):
        server.finish_round(never)
    assert (tmp_path / "server" / "server_state.pt").read_bytes() == before


def test_results_are_tested_once(resumed, tiny, tmp_path) -> None:
    server, sites = resumed(ROUNDS, tmp_path / "run")
    assert server.round == ROUNDS and not server.finished
    for name, site in sites.items():
        server.accept_test(name, site.test(server.test_payload(name), never))
    results = server.finish(never)
    assert (results["status"], results["round"], results["method"]) == ("finished", ROUNDS, "fedmepd")
    assert [entry["name"] for entry in results["sites"]] == list(SITES)
    for entry in results["sites"]:
        assert entry["modalities"] == list(SITES[entry["name"]]) and entry["cases"] == COUNTS[entry["name"]]
        assert entry["rounds_taken"] == [1, 2, 3] and entry["validation"]["round"] == 3
        assert 0 < entry["personal_share"] < 1 and set(entry["test"]["hd95_mm"]) == {"WT", "TC", "ET"}
    assert results["server"]["name"] == "server" and results["server"]["cases"] == COUNTS["fusion"]
    assert results["server"]["modalities"] == list(MODALITIES["fusion"])
    last = load_model(tmp_path / "run" / "server" / "global_last.pt")
    state = server_state(tmp_path / "run")
    for key, value in last.state_dict().items():
        assert key.startswith("auxiliary.") or torch.equal(value, state["state"][key])
    assert len(last.anchors) == 4
    again, _ = make(tiny, settings(), tmp_path / "run")
    assert again.finished
    assert again.finish(lambda: pytest.fail("tested again"))["server"]["test"] == results["server"]["test"]


@pytest.mark.parametrize(
    ("method", "own", "personal", "anchors"),
    [
        ("fedmepd", {"encoders", "decoder"}, True, True),
        ("local", set(), False, False),
        ("fedavg", {"encoders", "decoder", "auxiliary"}, False, False),
        ("fusion_only", {"encoders", "decoder"}, False, False),
    ],
)
def test_payload(method: str, own: set[str], personal: bool, anchors: bool, tiny, tmp_path) -> None:
    """By part: the site's own encoders, nothing of others."""
    server = make_server(tiny, settings(method=method, evaluation={"every": 1}), tmp_path)
    for name, modalities in SITES.items():
        server.register(SiteProfile(name, modalities, COUNTS[name], "folder"))
    server.start(never)
    server.begin_round()
    for name, modalities in SITES.items():
        payload = server.payload(name)
        assert payload.round == 1
        parts = {key.split(".")[0] for key in payload.tensors}
        assert parts == own | ({"patience"} if personal else set()) | ({"anchors"} if anchors else set())
        encoders = {key.split(".")[1] for key in payload.tensors if key.startswith("encoders.")}
        assert encoders == (set(modalities) if own else set())
        state = server_state(tmp_path)["state"]
        for key, value in payload.tensors.items():
            if key.split(".")[0] in own:
                assert torch.equal(value, state[key])
    if anchors:
        assert [tuple(server.payload("site-1").tensors[f"anchors.{level}"].shape) for level in (1, 2, 3, 4)] == [
            (8, 4),
            (8, 8),
            (8, 16),
            (8, 32),
        ]


def test_sites_that_share_all_filters_are_sent_the_same_tensors(started) -> None:
    """No copy for each: memory must not grow with the number of sites."""
    server, _ = started
    server.begin_round()
    first, second = (server.payload(name).tensors for name in SITES)
    weights = [key for key in first.keys() & second.keys() if key.startswith(("encoders.", "decoder."))]
    assert len(weights) > 50
    assert all(first[key].data_ptr() == second[key].data_ptr() for key in weights)


def test_what_was_sent_is_not_kept(resumed, tmp_path) -> None:
    """A site with personal filters gets tensors of its own, which are gone as soon as they are sent."""
    server, _ = resumed(ROUNDS, tmp_path / "run")
    server.begin_round()
    payload = server.payload("site-1")
    whole = server_state(tmp_path / "run")["state"]
    own = [weakref.ref(value) for key, value in payload.tensors.items() if len(value) < len(whole.get(key, ()))]
    assert own
    update = answer(server, "site-1")
    del payload
    gc.collect()
    assert not any(reference() is not None for reference in own)
    # Still, the update is compared with it.
    update.tensors["decoder.classify.weight"] = torch.zeros(7, 1)
    with pytest.raises(UpdateRefused, match="decoder.classify.weight has shape"):
        server.accept("site-1", update)


def test_payload_of_fusion_only_travels_when_it_is_needed(tiny, tmp_path) -> None:
    """Its sites do nothing but validate."""
    server, sites = make(tiny, settings(method="fusion_only", rounds=3, evaluation={"every": 2}), tmp_path)
    sent = {}
    while server.round < 3:
        server.begin_round()
        payload = server.payload("site-1")
        sent[payload.round] = bool(payload.tensors)
        server.accept("site-1", sites["site-1"].train(payload, never))
        server.finish_round(never)
    assert sent == {1: False, 2: True, 3: True}


def test_payload_of_one_shared_encoder(tiny, tmp_path) -> None:
    server, _ = make(tiny, settings(network={"shared_encoder": True}), tmp_path)
    server.begin_round()
    encoders = {key.split(".")[1] for key in server.payload("site-1").tensors if key.startswith("encoders.")}
    assert encoders == {"shared"}


@pytest.mark.parametrize(("patience", "decoder"), [(0, False), (None, True)])
def test_payload_of_a_decoder_that_is_all_personal_or_never(patience, decoder, tiny, tmp_path) -> None:
    of = settings(personalization={"patience": patience, "warmup_rounds": 0})
    server, sites = make(tiny, of, tmp_path)
    figures = play(server, sites, 2)
    server.begin_round()
    parts = {key.split(".")[0] for key in server.payload("site-1").tensors}
    assert ("decoder" in parts) == decoder
    assert figures["mean of the sites/personal_share"] == (0 if decoder else 1)
    losses = [figures[f"{site}/loss_total"] for site in sites]
    assert len(losses) > 1 and figures["mean of the sites/loss_total"] == pytest.approx(sum(losses) / len(losses))


def test_personal_filters_are_not_sent(resumed, tmp_path, uninterrupted) -> None:
    server, _ = resumed(ROUNDS, tmp_path / "run")
    state = server_state(uninterrupted)
    server.begin_round()
    tensors = server.payload("site-2").tensors
    assert tensors["patience.decoder.classify"].dtype == torch.uint8
    for layer, patience in state["personalization"]["site-2"]["patience"].items():
        assert torch.equal(tensors[f"patience.{layer}"], patience)
        for kind in ("weight", "bias"):
            whole = state["state"].get(f"{layer}.{kind}")
            rows = [] if whole is None else [j for j in range(len(patience)) if patience[j] > 0]
            assert (f"{layer}.{kind}" in tensors) == bool(rows)
            if rows:
                assert torch.equal(tensors[f"{layer}.{kind}"], whole[rows])


def test_refused_updates(started) -> None:
    server, _ = started
    with pytest.raises(UpdateRefused, match="update of site-1 for round 1 refused: no round waits for it"):
        server.accept("site-1", Update(1))
    server.begin_round()
    late = answer(server, "site-2")
    late.round = 0
    unknown = answer(server, "site-1")
    bad_report = answer(server, "site-1")
    bad_report.report["validation"] = {"mdsc": float("nan")}
    bad_tensor = answer(server, "site-1", float("nan"))
    too_many = answer(server, "site-1")
    too_many.report["cases"] = server.profiles["site-1"].cases["train"] + 1
    server.accept("site-1", answer(server, "site-1"))
    for site, update, text in [
        ("site-1", answer(server, "site-1"), "update of site-1 for round 1 refused: one is in already"),
        ("site-2", late, "it is for round 0, the current round is 1"),
        ("stranger", unknown, "update of stranger for round 1 refused: no round waits for it"),
    ]:
        with pytest.raises(UpdateRefused, match=text):
            server.accept(site, update)
    server.begin_round()
    server.payload("site-1")
    for update, text in (
        (bad_report, "site-1"),
        (bad_tensor, "site-1"),
        (too_many, "training cases when it logged in"),
    ):
        with pytest.raises(UpdateRefused, match=text):
            server.accept("site-1", update)


def test_a_refused_update_leaves_no_trace(resumed, tmp_path) -> None:
    """The round goes on with the other site, as if the refused one had not been there."""
    states = []
    for name in ("with", "without"):
        server, _ = resumed(0, tmp_path / name)
        server.begin_round()
        good = answer(server, "site-2")
        bad = answer(server, "site-1", float("inf"))
        if name == "with":
            with pytest.raises(UpdateRefused):
                server.accept("site-1", bad)
        server.accept("site-2", good)
        assert server.stats()["sites_missing"] == ["site-1"] and server.stats()["sites_in"] == ["site-2"]
        figures = server.finish_round(never)
        assert figures["federation/sites"] == 1
        states.append(server_state(tmp_path / name))
    for key in ("state", "anchors", "personalization"):
        assert same(states[0][key], states[1][key]), key
    assert same(states[0]["fusion"]["optimizer"], states[1]["fusion"]["optimizer"])
    records = [state["records"]["site-1"] for state in states]
    assert [record["rounds_taken"] for record in records] == [[], []]
    (refused,), (silent,) = (record["rounds_missed"] for record in records)
    assert refused["round"] == silent["round"] == 1 and silent["reason"] == "no answer in time"
    assert "NaN or infinite" in refused["reason"]


def test_too_few_sites(tiny, tmp_path) -> None:
    server, _ = make(tiny, settings(aggregation={"min_sites": 2}), tmp_path)
    server.begin_round()
    server.payload("site-2")
    server.accept("site-1", answer(server, "site-1"))
    with pytest.raises(FedMEPDError, match="round 1: 1 of 2 sites delivered, aggregation.min_sites is 2"):
        server.finish_round(never)
    assert server_state(tmp_path)["round"] == 0


@pytest.mark.parametrize("name", ["fusion", "server"])
def test_fusion_sites_name_is_taken(name, started) -> None:
    """Results and curves call it server: a site of that name would have its place."""
    server, _ = started
    with pytest.raises(FedMEPDError, match=f"a site is named '{name}', .*: rename the site"):
        server.register(SiteProfile(name, SITES["site-1"], COUNTS["site-1"], "folder"))


def test_phantoms_and_patients_do_not_mix(tiny, tmp_path) -> None:
    server = make_server(tiny, settings(), tmp_path)
    phantom = SiteProfile("site-1", SITES["site-1"], COUNTS["site-1"], "phantom")
    with pytest.raises(FedMEPDError, match="site-1 uses the phantom cohort, the fusion site a data folder: set"):
        server.register(phantom)
    assert not server.profiles
    server = make_server(tiny, settings(), tmp_path, data=replace(tiny.data("fusion"), source="phantom"))
    with pytest.raises(FedMEPDError, match="site-1 uses a data folder, the fusion site the phantom cohort"):
        server.register(replace(phantom, source="folder"))
    server.register(phantom)


def test_resume_with_other_settings(tiny, tmp_path, uninterrupted) -> None:
    shutil.copytree(uninterrupted, tmp_path / "run")
    changed = settings(run_name="mine", training={"learning_rate": 0.5}, personalization={"patience": None})
    server = make_server(tiny, changed, tmp_path / "run")
    before = (tmp_path / "run" / "server" / "server_state.pt").read_bytes()
    with pytest.raises(CheckpointError, match="run 'mine' was started with other settings .*server_state.pt") as error:
        server.restore()
    for text in (
        "training.learning_rate was 0.001, now 0.5",
        "personalization.patience was 1, now None",
        "same settings, or under another run_name",
    ):
        assert text in str(error.value)
    assert "network.width" not in str(error.value)
    assert (tmp_path / "run" / "server" / "server_state.pt").read_bytes() == before


def test_resume_of_a_run_that_an_older_version_began(tiny, tmp_path, uninterrupted) -> None:
    """Settings that it did not have are at their defaults, and the next round waits for medians of its own."""
    shutil.copytree(uninterrupted, tmp_path / "run")
    path = tmp_path / "run" / "server" / "server_state.pt"
    content = torch.load(path, weights_only=True)
    del content["settings"]["privacy"], content["settings"]["aggregation"]["trim"], content["bound"]
    torch.save(content, path)
    server = make_server(tiny, settings(), tmp_path / "run")
    server.restore()
    assert server.round == content["round"]
    other = make_server(tiny, settings(aggregation={"trim": 0.25}), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"aggregation.trim was 0.*, now 0.25"):
        other.restore()


def test_damaged_state(tiny, tmp_path, uninterrupted) -> None:
    shutil.copytree(uninterrupted, tmp_path / "run")
    path = tmp_path / "run" / "server" / "server_state.pt"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match="server_state.pt.*damaged"):
        make_server(tiny, settings(), tmp_path / "run").restore()


def test_state_of_an_older_version(tiny, tmp_path, uninterrupted) -> None:
    shutil.copytree(uninterrupted, tmp_path / "run")
    path = tmp_path / "run" / "server" / "server_state.pt"
    content = torch.load(path, weights_only=True)
    # The first layout had no number, and none of the first said its version.
    del content["format"], content["timing"], content["version"]
    torch.save(content, path)
    with pytest.raises(
        CheckpointError,
        match="server_state.pt was written by fedmepd 0.1.0, which .* go on with that",
    ):
        make_server(tiny, settings(), tmp_path / "run").restore()


def test_a_site_that_takes_no_part_is_in_the_results(tiny, tmp_path) -> None:
    """Also after a restart, and until it joins."""
    server, sites = make(tiny, settings(), tmp_path, ["site-1"])
    server.leave_out("site-2", "a label is missing")
    play(server, sites, 1)
    expected = [{"name": "site-2", "reason": "a label is missing"}]
    assert server.results()["left_out"] == expected
    assert json.loads((tmp_path / "results/results.json").read_text())["left_out"] == expected
    server, _ = make(tiny, settings(), tmp_path, ["site-1"])
    assert server.results()["left_out"] == expected
    server.register(make_site(tiny, settings(), tmp_path, "site-2").profile())
    assert server.results()["left_out"] == []


def test_why_a_site_takes_no_further_part_is_in_the_results(tiny, tmp_path) -> None:
    """As where a run goes on, and a site that was there before cannot take part any more."""
    server, sites = make(tiny, settings(rounds=2), tmp_path, ["site-1", "site-2"])
    play(server, sites, 1)
    server.leave_out("site-2", "a label is missing")
    play(server, {"site-1": sites["site-1"]}, 2)
    (_, row) = server.results()["sites"]
    assert row["rounds_missed"] == [{"round": 2, "reason": "a label is missing"}]


def test_a_site_that_joins_later(tiny, tmp_path) -> None:
    server, sites = make(tiny, settings(), tmp_path, ["site-1"])
    play(server, sites, 1)
    sites["site-2"] = make_site(tiny, settings(), tmp_path, "site-2")
    server.register(sites["site-2"].profile())
    play(server, sites, 2)
    records = server_state(tmp_path)["records"]
    assert [records[name]["rounds_taken"] for name in SITES] == [[1, 2], [2]]


def test_figures(started) -> None:
    server, sites = started
    figures = play(server, sites, 2)
    for name in SITES:
        tags = ("loss_total", "loss_segmentation", "seconds", "validation_mdsc", "validation_dice_ET", "personal_share")
        assert {f"{name}/{tag}" for tag in tags} <= figures.keys()
    assert {"server/loss_total", "server/validation_mdsc", "server/seconds/fusion_training"} <= figures.keys()
    assert figures["federation/sites"] == 2
    shares = [figures[f"{name}/personal_share"] for name in SITES]
    assert figures["mean of the sites/personal_share"] == pytest.approx(sum(shares) / 2) and sum(shares) > 0
    assert all(isinstance(value, float) for value in figures.values())
    stats = server.stats()
    assert (stats["round"], stats["rounds"], stats["sites_in"]) == (2, 3, list(SITES))
    # Only names of sites and figures leave the server: no case, no path.
    assert "case-" not in str(figures) + str(stats) and "/data" not in str(stats)


def test_time_of_a_round(tiny, tmp_path, monkeypatch) -> None:
    """Every part of the server's work takes as long as this test says."""
    clock = Clock()
    of = settings(evaluation={"every": 1}, aggregation={"norm_bound": 0})

    for owner, name, seconds in [
        (FusionSite, "fuse", 12),
        (FusionSite, "validate", 3),
        (FusionSite, "test", 3),
        (Aggregation, "result", 0.5),
        (ServerState, "save", 2),
    ]:
        monkeypatch.setattr(owner, name, clock.slowly(seconds, getattr(owner, name)))

    def open_server() -> FederationServer:
        clock.wait(4)
        timing = Timing(clock)
        clock.wait(6)
        return make_server(tiny, of, tmp_path, timing=timing)

    server = open_server()
    for name, modalities in SITES.items():
        server.register(SiteProfile(name, modalities, COUNTS[name], "folder"))
    server.start(never)
    server.begin_round()
    updates = {name: answer(server, name) for name in SITES}
    clock.wait(5)
    server.accept("site-2", updates["site-2"])
    clock.wait(3)
    server.accept("site-1", updates["site-1"])
    clock.wait(0.25)
    figures = server.finish_round(never)
    # Of the 8 s until site-1 had answered, it says that it has worked one.
    expected = {
        "site_training": 1,
        "transfer": 7,
        "waiting": 0.25,
        "aggregation": 0.5,
        "fusion_training": 12,
        "fusion_evaluation": 3,
        "saving": 2,
    }
    assert {tag.rpartition("/")[2]: value for tag, value in figures.items() if "server/seconds/" in tag} == (
        dict.fromkeys(PHASES, 0) | expected | {"total": 25.75, "overhead": 9.75}
    )
    assert [record.phases for record in server.timing.rounds] == [
        dict.fromkeys(PHASES, 0) | {"start_up": 6, "fusion_training": 12, "saving": 2},
        dict.fromkeys(PHASES, 0) | expected,
    ]
    assert server.timing.total() == clock() - 1004 == 20 + 25.75

    # What results.json and the state hold is as of the moment at which they were written: before the last saving.
    written = json.loads((tmp_path / "results" / "results.json").read_text())
    assert written["seconds"] == 20 + 23.75
    assert [entry["total"] for entry in written["timing"]["rounds"]] == [20, 23.75]
    again = open_server()
    again.restore()
    for name in SITES:
        again.accept_test(name, {"test": None, "selected_round": 1})
    results = again.finish(never)
    assert [entry["fusion_training"] for entry in results["timing"]["rounds"]] == [12, 12]
    # A new start, and one test.
    assert results["timing"]["seconds"]["testing"] == 6 + 3 and results["seconds"] == 20 + 23.75 + 9


def test_nothing_to_restore(tiny, tmp_path) -> None:
    server = make_server(tiny, settings(), tmp_path)
    server.restore()
    assert server.round == -1 and not server.finished and server.test_payload("site-1") == Payload(-1)


THREE = (*SITES, "site-3")


def three_sites(tiny: Tiny, folder: Path, bound: float, log: list[str] | None = None) -> FederationServer:
    of = settings(aggregation={"norm_bound": bound})
    server = make_server(tiny, of, folder, log=([] if log is None else log).append)
    server.restore()
    for name in THREE:
        server.register(SiteProfile(name, ("T1ce",), COUNTS["site-1"], "folder"))
    server.start(never)
    return server


def play_answers(server: FederationServer, values: dict[str, float]) -> dict[str, torch.Tensor]:
    server.begin_round()
    for name, value in values.items():
        server.accept(name, answer(server, name, value))
    server.finish_round(never)
    return server_state(server.results_folder.parent)["state"]


SIZES = {"site-1": 0.001, "site-2": 0.002, "site-3": 1.0}


@pytest.fixture(scope="module")
def tamed(tiny, tmp_path_factory) -> dict[int, dict[str, torch.Tensor]]:
    """The weights after each of two rounds without a bound, in which site 3 answers with the median's size."""
    server = three_sites(tiny, tmp_path_factory.mktemp("plain"), 0)
    return {number: play_answers(server, SIZES | {"site-3": 0.002}) for number in (1, 2)}


@pytest.mark.parametrize("order", [THREE, THREE[::-1], (THREE[1], THREE[2], THREE[0])])
def test_update_of_a_thousand_times_the_median(order, tamed, tiny, tmp_path) -> None:
    """In the first round and later ones, whoever comes first: as if the site had answered with the median's size."""
    log: list[str] = []
    bounded = three_sites(tiny, tmp_path, 10, log)
    for number in (1, 2):
        found = play_answers(bounded, {name: SIZES[name] for name in order})
        for key, value in tamed[number].items():
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
        assert not list((tmp_path / "server" / "waiting").glob("*"))
        line = f"round {number}: the update of site-3 is scaled down to the median site's size: it was 500 times"
        assert sum(line in entry for entry in log) == 1
    records = server_state(tmp_path)["records"]
    assert [entry["round"] for entry in records["site-3"]["limited"]] == [1, 2]
    assert records["site-3"]["limited"][0]["times_median"] == 500 and records["site-1"]["limited"] == []
    assert len([entry for entry in log if "scaled down" in entry]) == 2


def test_bound_after_a_restart(tiny, tmp_path) -> None:
    """The median is part of the state, and what waited for the first one is asked for again."""
    server = three_sites(tiny, tmp_path, 10)
    server.begin_round()
    server.accept("site-3", answer(server, "site-3", 1.0))
    server = three_sites(tiny, tmp_path, 10)
    play_answers(server, dict.fromkeys(THREE, 0.002))
    server = three_sites(tiny, tmp_path, 10)
    play_answers(server, {"site-1": 0.002, "site-3": 0.5})
    limited = [server_state(tmp_path)["records"][name]["limited"] for name in THREE]
    assert limited == [[], [], [{"round": 2, "times_median": 250.0, "filters": 0}]]


def test_why_a_site_missed_a_round(tiny, tmp_path) -> None:
    server = three_sites(tiny, tmp_path, 10)
    server.begin_round()
    server.accept("site-1", answer(server, "site-1"))
    server.payload("site-2")
    server.miss("site-2", "out of memory")
    server.finish_round(never)
    server.miss_test("site-2", "no answer in time")
    results = server.finish(never)
    missed = {entry["name"]: entry["rounds_missed"] for entry in results["sites"]}
    assert missed == {
        "site-1": [],
        "site-2": [{"round": 1, "reason": "out of memory"}],
        "site-3": [{"round": 1, "reason": "not connected"}],
    }
    assert [entry["untested"] for entry in results["sites"]] == [None, "no answer in time", None]
    history = json.loads((tmp_path / "results" / "history.json").read_text())
    assert set(history) == {"server", *THREE} and [entry["round"] for entry in history["site-1"]["rounds"]] == [1]


def test_classes_without_anchors_are_named(tiny, tmp_path) -> None:
    """Three training cases hold all classes; four would be needed."""
    log: list[str] = []
    of = settings(calibration={"anchor_cases": 4})
    server = make_server(tiny, of, tmp_path, log=log.append)
    server.register(SiteProfile("site-1", ("T1ce",), COUNTS["site-1"], "folder"))
    server.start(never)
    (line,) = [entry for entry in log if "no anchors" in entry]
    assert "fewer patients of the fusion site's training showed it than calibration.anchor_cases = 4" in line
    server.begin_round()
    assert not [key for key in server.payload("site-1").tensors if key.startswith("anchors.")]


@pytest.mark.parametrize("bound", [3.0, 0.0])
def test_a_round_of_hardly_any_change_gives_a_site_no_say_above_others(bound, tiny, tmp_path) -> None:
    """Site 1 returns a decoder that has hardly moved, so that the paper's weight H of its filters explodes."""
    of = settings(personalization={"patience": 9, "warmup_rounds": 0, "weight_bound": bound})
    server, sites = make(tiny, of, tmp_path)
    server.begin_round()
    for name, site in sites.items():
        update = site.train(server.payload(name), never)
        if name == "site-1":
            for key in update.tensors:
                if key.startswith("decoder."):
                    update.tensors[key] *= 1e-9
        server.accept(name, update)
    server.finish_round(never)
    weights = {name: state["weights"] for name, state in server_state(tmp_path)["personalization"].items()}
    ratios = [(weights["site-1"][layer] / weights["site-2"][layer]).max() for layer in weights["site-1"]]
    assert (max(ratios) <= 3.001) == bool(bound) and (max(ratios) > 1000) == (not bound)
    if not bound:
        return
    # A site that comes later begins with no more than that, though weights begin at one.
    server.register(SiteProfile("site-3", ("T2",), COUNTS["site-2"], "folder"))
    play(server, sites, 2)
    weights = {name: state["weights"] for name, state in server_state(tmp_path)["personalization"].items()}
    for layer, values in weights["site-3"].items():
        middle = torch.stack([weights[name][layer] for name in weights]).sort(dim=0).values[1]
        assert (values <= 3.001 * middle).all()
