"""What becomes of a run in which privacy budgets are spent before its last round."""

from __future__ import annotations

import pytest

from fedmepd.evaluation import tables
from fedmepd.federation.exchange import Payload
from fedmepd.federation.in_process import run_in_process
from fedmepd.privacy.accountant import Release, epsilon
from fedmepd.privacy.participant import BudgetSpent
from fedmepd.site_settings import SitePrivacy
from tests.federation.drive import make
from tests.tiny import SITES, never, settings

DELTA = 1e-3
# Site-1 trains on 3 patients, in 2 steps a round, each patient with probability 2/3. This suffices for two rounds.
TWO_ROUNDS = epsilon([Release(1.0, 2 / 3, 4)], DELTA) + 1e-6
# Site-2 has 2 patients, who are in its one step a round in any case.
assert epsilon([Release(1.0, 1.0, 3)], DELTA) < TWO_ROUNDS


def short(min_sites: int, **more):
    privacy = {"epsilon": TWO_ROUNDS, "noise": 1.0, "delta": DELTA}
    return settings("local", rounds=3, privacy=privacy, aggregation={"min_sites": min_sites}, **more)


def run(tiny, folder, of):
    machine = tiny.machine.model_copy(update={"privacy": SitePrivacy(scores="share"), "cross_site": "share"})
    log: list[str] = []
    return run_in_process(of, machine, folder, list(SITES), log.append), log


def test_a_site_whose_budget_is_spent_is_tested_and_the_others_go_on(tiny, tmp_path) -> None:
    results, _ = run(tiny, tmp_path, short(1, evaluation={"cross_site": True}))
    first, second = results["sites"]
    assert (results["status"], results["round"]) == ("finished", 3)
    assert (first["ended"], first["rounds_taken"]) == (3, [1, 2])
    assert (second["ended"], second["rounds_taken"]) == (None, [1, 2, 3])
    assert "budget of the run is spent" in first["rounds_missed"][0]["reason"]
    # The model of its last round, and others' models on its cases.
    assert first["test"]["mdsc"] >= 0 and second["test"]["mdsc"] >= 0
    for model, site in (("site-1", "site-2"), ("site-2", "site-1")):
        assert results["cross_site"][model][site]["test"]["mdsc"] >= 0
    spent = epsilon([Release(1.0, 2 / 3, 4)], DELTA)
    assert first["privacy"]["epsilon"] == pytest.approx(spent, abs=1e-4)
    (note,) = [line for line in tables.notes(results) if "trained no further" in line]
    assert note.startswith(f"site-1: differential privacy for each training patient, epsilon {spent:.3g} of ")
    assert note.endswith("; from round 3 on it trained no further, since its budget was spent")


def test_too_few_sites_with_a_budget_end_the_training_and_not_the_job(tiny, tmp_path) -> None:
    # No validation comes before the end of the training: all models are those of the last round.
    results, log = run(tiny, tmp_path, short(2, evaluation={"every": 3}))
    assert (results["status"], results["round"]) == ("finished", 2)
    assert [site["ended"] for site in results["sites"]] == [3, None]
    assert all(site["rounds_taken"] == [1, 2] and site["test"]["mdsc"] >= 0 for site in results["sites"])
    assert any(line.startswith("round 3 does not take place: the privacy budgets of site-1 are spent") for line in log)
    (note,) = [line for line in tables.notes(results) if line.startswith("the training ended")]
    assert "after round 2 of 3: too few sites had anything left of their privacy budgets" in note
    # Site-2 had trained the round that does not count: its tested model is that of the round before.
    assert "| round | 2 of 3 |" in (tmp_path / "site-2" / "model_card.md").read_text()
    # The run is over for whoever starts it again.
    again, _ = run(tiny, tmp_path, short(2, evaluation={"every": 3}))
    assert (again["status"], again["round"]) == ("finished", 2)


def test_a_site_with_a_new_login_is_asked_again(tiny, tmp_path) -> None:
    server, sites = make(tiny, short(1), tmp_path)
    server.begin_round()
    assert server.trains("site-1") and not server.training_over
    spent = {"epsilon": 3.0}
    server.end_training("site-1", "spent", spent)
    server.end_training("site-2", "spent", spent)
    assert not server.trains("site-1") and server.training_over
    assert server.finish_round(never) == {} and server.round == 0
    server.register(sites["site-1"].profile())
    assert server.trains("site-1") and not server.training_over


def test_the_error_says_what_is_spent(tiny, tmp_path) -> None:
    _, sites = make(tiny, short(1), tmp_path)
    site = sites["site-1"]
    for number in (1, 2):
        site.train(Payload(number), never)
    for _ in range(2):
        with pytest.raises(BudgetSpent) as refused:
            site.train(Payload(3), never)
        assert refused.value.spent["epsilon"] == pytest.approx(TWO_ROUNDS, abs=1e-3)
