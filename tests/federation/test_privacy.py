"""Differential privacy in the federation: what leaves, what is spent, and what is left of a budget after a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fedmepd import methods
from fedmepd.config import PrivacySettings
from fedmepd.disclosure import reason_of
from fedmepd.errors import CheckpointError, FedMEPDError, SettingsError
from fedmepd.evaluation import tables
from fedmepd.federation.exchange import Payload
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.in_process import run_in_process
from fedmepd.federation.open_round import TensorStore
from fedmepd.federation.private import privacy_of
from fedmepd.federation.site import FederationSite
from fedmepd.methods.method import Fused
from fedmepd.networks.build import build_network
from fedmepd.privacy.accountant import Release, epsilon
from fedmepd.privacy.participant import Account, BudgetSpent, Plan, Privacy, Terms
from fedmepd.site_settings import SitePrivacy
from fedmepd.storage import load_tensors
from tests.privacy.randomness import known
from tests.tiny import SITES, never, settings

CPU = torch.device("cpu")
NAME = "site-1"
# Site-1 trains on 3 patients, 2 of them in a step on average: 2 steps a round, each patient with probability 2/3.
RATE, STEPS = 2 / 3, 2
DELTA = 1e-3


@pytest.fixture(scope="module")
def private(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    of = settings(rounds=1, privacy={"epsilon": 20, "delta": DELTA})
    results = run_in_process(of, tiny.machine, folder, list(SITES))
    return SimpleNamespace(folder=folder, results=results, settings=of)


def test_results_say_what_was_spent(private) -> None:
    site, server = private.results["sites"][0]["privacy"], private.results["server"]["privacy"]
    expected = epsilon([Release(site["noise"], RATE, STEPS)], DELTA)
    assert site["epsilon"] == pytest.approx(expected, abs=1e-4)
    # The fusion site: 3 patients too, round 0 besides, and anchors in every round.
    releases = [Release(server["noise"], RATE, 2 * STEPS), Release(server["vector_noise"], 1.0, 2)]
    assert server["epsilon"] == pytest.approx(epsilon(releases, DELTA), abs=1e-4)
    for spent in (site, server):
        # The noise was chosen so that the budget lasts for all rounds, and no longer.
        assert 0.98 * 20 < spent["epsilon"] <= 20
        assert (spent["unit"], spent["delta"], spent["budget"]) == ("patient", DELTA, 20)
    note = next(line for line in tables.notes(private.results) if line.startswith(f"{NAME}: differential privacy"))
    told = f"epsilon {site['epsilon']:.3g} of 20 at delta 0.001"
    assert told in note and told in (private.folder / NAME / "model_card.md").read_text()
    assert "epsilon" in (private.folder / "server" / "model_card.md").read_text()


def test_no_losses_and_no_scores_leave(private) -> None:
    histories = json.loads((private.folder / "results" / "history.json").read_text())
    assert set(histories) == {"server", *SITES}
    for history in histories.values():
        assert history["rounds"] and not history["validation"]
        # The last two are the server's, made of the updates.
        known = {"round", "steps", "seconds", "bytes_up", "bytes_down", "times_median", "weights_limited"}
        assert all(set(entry) <= known for entry in history["rounds"])
    for entry in (*private.results["sites"], private.results["server"]):
        assert entry["validation"] is None and entry["test"] is None and entry["untested"] == reason_of("not allowed")
    # The site's own people see them.
    own = json.loads((private.folder / NAME / "site.json").read_text())
    assert own["test"]["mdsc"] >= 0 and own["history"]["validation"]
    assert any("total" in entry for entry in own["history"]["rounds"])


def test_sites_that_share_scores_share_them(tiny, tmp_path) -> None:
    demanded = SitePrivacy(scores="share")
    site = at(tiny, tmp_path, demanded=demanded, epsilon=1000)
    site.train(Payload(1), never)
    update = site.train(Payload(2), never)
    assert update.report["validation"]["mdsc"] >= 0 and update.report["losses"] == {}
    assert site.test(Payload(2), never)["test"]["mdsc"] >= 0


def at(tiny, folder, demanded=SitePrivacy(), account=None, log=lambda line: None, **privacy):  # noqa: B008
    of = settings("local", rounds=3, privacy={"delta": DELTA, **privacy})
    return FederationSite(NAME, of, tiny.data(NAME), folder, CPU, log, demanded=demanded, account=account)


def two_rounds(noise=1.0) -> float:
    return epsilon([Release(noise, RATE, 2 * STEPS)], DELTA) + 1e-6


def test_a_killed_site_neither_forgets_what_it_spent_nor_draws_the_same_noise(tiny, tmp_path) -> None:
    lines: list[str] = []
    budget = {"epsilon": two_rounds(), "noise": 1.0}
    at(tiny, tmp_path, **budget).train(Payload(1), never)
    first = load_tensors(tmp_path / "state_00001.pt")["network"]
    # Killed after the update has left: the server asks for the round again.
    again = at(tiny, tmp_path, log=lines.append, **budget)
    update = again.train(Payload(1), never)
    second = load_tensors(tmp_path / "state_00001.pt")["network"]
    assert not any(torch.equal(first[key], second[key]) for key in first if key.endswith("conv.weight"))
    assert update.report["privacy"]["epsilon"] == pytest.approx(two_rounds(), abs=1e-3)
    with pytest.raises(BudgetSpent) as refused:
        again.train(Payload(2), never)
    assert "privacy budget of the run is spent" in refused.value.public and "keeps its model" in refused.value.public
    assert refused.value.spent["epsilon"] == pytest.approx(two_rounds(), abs=1e-3)
    assert any("budget" in line for line in lines)
    # The model is there, and can be tested; a new process knows that nothing is left.
    assert again.test(Payload(3), never)["withheld"] == "not allowed"
    with pytest.raises(BudgetSpent):
        at(tiny, tmp_path, **budget).train(Payload(2), never)


def test_the_sites_own_budget_wins_and_holds_for_all_its_runs(tiny, tmp_path) -> None:
    demanded = SitePrivacy(epsilon=5, delta=DELTA)
    kit = tmp_path / "kit.json"
    # A job that asks for nothing, and one that asks for less privacy and is asked for its last round again and again.
    first = at(tiny, tmp_path / "1", demanded=demanded, account=Account(kit, "1"))
    report = first.train(Payload(1), never).report
    assert report["privacy"]["budget"] == 5
    second = at(tiny, tmp_path / "2", demanded=demanded, account=Account(kit, "2"), epsilon=1000, noise=0.5)
    with pytest.raises(BudgetSpent, match="of the site for all its runs") as refused:
        for round_number in (1, 2, 3, 3, 3, 3):
            second.train(Payload(round_number), never)
    assert report["privacy"]["noise"] > 0.5 and refused.value.spent["noise"] > 0.5
    # Both together, by the noise that each of them says, are within the site's budget.
    ended = [report["privacy"], refused.value.spent]
    rounds = [1, len(json.loads(kit.read_text())["runs"]["2"]["entries"])]
    together = [Release(of["noise"], RATE, STEPS * count) for of, count in zip(ended, rounds, strict=True)]
    assert rounds[1] >= 3 and 4 < epsilon(together, DELTA) <= 5


def test_terms_are_the_stricter_of_job_and_site() -> None:
    off, on = PrivacySettings(), PrivacySettings(epsilon=8, delta=1e-4)
    assert Terms.agreed(off, SitePrivacy()) is None
    assert Terms.agreed(on, SitePrivacy()) == Terms(8, 1e-4, on)
    assert Terms.agreed(off, SitePrivacy(epsilon=2, delta=1e-6)) == Terms(2, 1e-6, off, of_all=2)
    assert Terms.agreed(on, SitePrivacy(epsilon=20, delta=1e-6)) == Terms(8, 1e-6, on, of_all=20)
    shared = SitePrivacy(epsilon=20, delta=1e-6, per_run=3)
    assert Terms.agreed(on, shared) == Terms(3, 1e-6, on, of_all=20, share=3)
    assert Terms.agreed(off, shared) == Terms(3, 1e-6, off, of_all=20, share=3)


def test_a_run_that_began_without_privacy_is_refused(tiny, tmp_path) -> None:
    at(tiny, tmp_path).train(Payload(1), never)
    with pytest.raises(FedMEPDError, match="trained without differential privacy, or the record"):
        at(tiny, tmp_path, epsilon=1000).train(Payload(2), never)


def test_a_damaged_record_is_refused(tiny, tmp_path) -> None:
    at(tiny, tmp_path, epsilon=1000, noise=1.0).train(Payload(1), never)
    file = tmp_path / "privacy.json"
    content = json.loads(file.read_text())
    content["runs"]["run"]["entries"][0]["times"] = -1
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="privacy.json.*times"):
        at(tiny, tmp_path, epsilon=1000, noise=1.0).train(Payload(2), never)


@pytest.mark.parametrize("name", methods.names())
def test_methods_that_cannot_be_combined_are_refused_by_name(name, tmp_path) -> None:
    method, demanded = methods.find(name), SitePrivacy(epsilon=8)
    given = NAME, settings(name), demanded, [], Account.of_run(tmp_path), print
    if method.private:
        of = settings(name, privacy={"epsilon": 8})
        assert privacy_of(*given, epochs=1, rounds=1) is not None
        # Nothing that it has a participant send but changes of weights, and anchors.
        assert not method.at_site(of).leave(1)
    else:
        with pytest.raises(
            SettingsError, match="privacy.epsilon: the method cannot be trained.*one of fedmepd, fedavg"
        ):
            settings(name, privacy={"epsilon": 8})
        with pytest.raises(FedMEPDError, match="cannot be trained with differential privacy.*fedmepd") as refused:
            privacy_of(*given, epochs=1, rounds=1)
        assert method.title in str(refused.value) and "the site demands it" in str(refused.value)


@pytest.mark.parametrize("name", [name for name in methods.names() if methods.find(name).private])
def test_noise_is_planned_for_the_rounds_in_which_the_fusion_site_trains(name, tiny, tmp_path) -> None:
    of = settings(name, rounds=3, privacy={"epsilon": 8, "delta": DELTA, "noise": 1.0})
    fusion = FusionSite(of, tiny.data("fusion", of), tmp_path, CPU)
    asked: list[int] = []

    def fuse(weights, round_number, extras=None):
        asked.append(round_number)
        return Fused(weights, {}, 3, {key: torch.zeros(1) for key in ("anchors.0",)}, {})

    weights = build_network(of).start(0).state_dict()
    methods.find(name).at_server(of, weights, TensorStore(tmp_path)).begin(fuse)
    assert fusion._privacy._plan.rounds == 3 + len(asked)


def test_delta_has_to_be_small(tmp_path) -> None:
    terms = Terms(8, 0.02, PrivacySettings(epsilon=8, delta=0.02))
    Privacy(NAME, terms, Plan(49, 2, 1, 1), Account.of_run(tmp_path))
    with pytest.raises(FedMEPDError, match="expected less than 0.02"):
        Privacy(NAME, terms, Plan(50, 2, 1, 1), Account.of_run(tmp_path))


def test_patients_in_a_step(tmp_path) -> None:
    job = PrivacySettings(epsilon=8)

    def of(count, **changes):
        terms = Terms(8, 1e-5, job.model_copy(update=changes))
        return Privacy(NAME, terms, Plan(count, 2, 1, 1), Account.of_run(tmp_path), known())

    assert (of(10).rate, of(10).expected, of(10).steps_per_epoch) == (0.2, 2, 5)
    assert (of(7, patients=3).rate, of(7, patients=3).steps_per_epoch) == (3 / 7, 3)
    assert (of(1).rate, of(1).expected, of(1).steps_per_epoch) == (1, 1, 1)


def test_without_privacy_nothing_of_it_is_there(finished) -> None:
    assert all(entry["privacy"] is None for entry in finished("fedmepd").results["sites"])
    assert "| differential privacy | none |" in (finished("fedmepd").folder / NAME / "model_card.md").read_text()


def test_another_number_of_patients_counts_with_another_rate(tiny, tmp_path) -> None:
    data = tiny.data(NAME)
    at(tiny, tmp_path, epsilon=1000, noise=1.0).train(Payload(1), never)
    fewer = FederationSite(
        NAME,
        settings("local", rounds=3, privacy={"delta": DELTA, "epsilon": 1000, "noise": 1.0}),
        replace(data, train=data.train[:2]),
        tmp_path,
        CPU,
    )
    spent = fewer.train(Payload(2), never).report["privacy"]
    releases = [Release(1.0, RATE, STEPS), Release(1.0, 1.0, 1)]
    assert spent["epsilon"] == pytest.approx(epsilon(releases, DELTA), abs=1e-4)
