"""What becomes of a run in which privacy budgets are spent before its last round."""

from __future__ import annotations

import pytest

from fedmepd.evaluation import tables
from fedmepd.federation.in_process import run_in_process
from fedmepd.privacy.accountant import Release, epsilon
from fedmepd.site_settings import SitePrivacy
from tests.federation.drive import make, make_server
from tests.tiny import SITES, never, settings

DELTA = 1e-3
BUDGET = 5.0


def after(rounds: int, patients: int) -> float:
    """What so many rounds cost: a patient a step on average, as many steps as patients."""
    return epsilon([Release(1.0, 1 / patients, patients * rounds)], DELTA)


# Site-1 trains on 3 patients, site-2 on 2: the budget suffices for three rounds there, and for two here.
assert after(2, patients=2) < after(3, patients=3) < BUDGET < after(3, patients=2)


SPENT = {"unit": "patient", "epsilon": 4.5, "delta": DELTA, "budget": BUDGET}
SPENT |= {"noise": 1.0, "vector_noise": None, "clip": 1.0, "rate": 0.5}


def short(min_sites: int, **more):
    privacy = {"epsilon": BUDGET, "noise": 1.0, "delta": DELTA, "patients": 1}
    return settings("local", **{"rounds": 3} | more, privacy=privacy, aggregation={"min_sites": min_sites})


def run(tiny, folder, of):
    machine = tiny.machine.model_copy(update={"privacy": SitePrivacy(scores="share"), "cross_site": "share"})
    log: list[str] = []
    return run_in_process(of, machine, folder, list(SITES), log.append), log


@pytest.mark.slow
def test_a_site_whose_budget_is_spent_is_tested_and_the_others_go_on(tiny, tmp_path) -> None:
    results, _ = run(tiny, tmp_path, short(1, evaluation={"cross_site": True}))
    other, ended = results["sites"]
    assert (results["status"], results["round"]) == ("finished", 3)
    assert (ended["ended"], ended["rounds_taken"]) == (3, [1, 2])
    assert (other["ended"], other["rounds_taken"]) == (None, [1, 2, 3])
    assert "budget of the run is spent" in ended["rounds_missed"][0]["reason"]
    # The model of its last round, and others' models on its cases.
    assert ended["test"]["mdsc"] >= 0 and other["test"]["mdsc"] >= 0
    for model, site in (("site-1", "site-2"), ("site-2", "site-1")):
        assert results["cross_site"][model][site]["test"]["mdsc"] >= 0
    spent = after(2, patients=2)
    assert ended["privacy"]["epsilon"] == pytest.approx(spent, abs=1e-4)
    (note,) = [line for line in tables.notes(results) if "trained no further" in line]
    assert note.startswith(f"site-2: differential privacy for each training patient, epsilon {spent:.3g} of ")
    assert note.endswith("; from round 3 on it trained no further, since its budget was spent")


@pytest.mark.slow
def test_too_few_sites_with_a_budget_end_the_training_and_not_the_job(tiny, tmp_path) -> None:
    # No validation comes before the end of the training: all models are those of the last round.
    results, log = run(tiny, tmp_path, short(2, rounds=4, evaluation={"every": 4}))
    assert (results["status"], results["round"]) == ("finished", 2)
    assert [site["ended"] for site in results["sites"]] == [None, 3]
    assert all(site["rounds_taken"] == [1, 2] and site["test"]["mdsc"] >= 0 for site in results["sites"])
    assert any(line.startswith("round 3 does not take place: the privacy budgets of site-2 are spent") for line in log)
    (note,) = [line for line in tables.notes(results) if line.startswith("the training ended")]
    assert "after round 2 of 4: too few sites had anything left of their privacy budgets" in note
    # Site-1 had trained the round that does not count: its tested model is that of the round before.
    assert "| round | 2 of 4 |" in (tmp_path / "site-1" / "model_card.md").read_text()
    # The run is over for whoever starts it again.
    again, _ = run(tiny, tmp_path, short(2, rounds=4, evaluation={"every": 4}))
    assert (again["status"], again["round"]) == ("finished", 2)


def test_a_site_with_a_new_login_is_asked_again(tiny, tmp_path) -> None:
    server, sites = make(tiny, short(1), tmp_path)
    server.begin_round()
    assert server.trains("site-1") and not server.training_over
    server.end_training("site-1", "spent", SPENT)
    server.end_training("site-2", "spent", SPENT)
    assert not server.trains("site-1") and server.training_over
    assert server.finish_round(never) == {} and server.round == 0
    server.register(sites["site-1"].profile())
    assert server.trains("site-1") and not server.training_over


@pytest.mark.slow
def test_a_server_that_is_started_again_goes_on_while_such_a_site_is_away(tiny, tmp_path) -> None:
    server, sites = make(tiny, short(1), tmp_path)
    server.begin_round()
    server.end_training("site-1", "spent", SPENT)
    server.accept("site-2", sites["site-2"].train(server.payload("site-2"), never))
    server.finish_round(never)
    for record in (None, "of an older version"):
        again = make_server(tiny, short(1), tmp_path)
        again.restore()
        if record:
            del again._records["site-1"]["ended"]
        again.register(sites["site-2"].profile())
        again.begin_round()
        assert again.trains("site-2") and again.trains("site-1") == bool(record)
