"""What a participant chooses before its first round."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from pydantic import ValidationError

from fedmepd.config import PrivacySettings
from fedmepd.privacy.accountant import Release, epsilon
from fedmepd.privacy.ledger import Ledger
from fedmepd.privacy.participant import Account, BudgetSpent, Plan, Privacy, Terms
from fedmepd.site_settings import SitePrivacy


def test_class_vectors_for_which_no_noise_is_enough(tmp_path) -> None:
    """They have noise all the same, and end the budget; without any, the fusion site failed after its training."""
    terms = Terms(1e-3, 1e-5, PrivacySettings(epsilon=1e-3, noise=1e4))
    privacy = Privacy(
        "fusion",
        terms,
        Plan(patients=10, batch=1, epochs=1, rounds=1000, vectors=True),
        Account(tmp_path / "p.json", "run"),
    )
    assert privacy.vector_noise is not None and privacy.vector_noise >= 1e4
    with pytest.raises(BudgetSpent):
        for round_number in range(1000):
            privacy.charge(round_number, 10)
    assert 0 < privacy.spent()["epsilon"] <= 1e-3


def test_runs_of_a_site_that_are_charged_at_the_same_moment(tmp_path) -> None:
    """A server that has several jobs train at once gets no more than the budget of all of them together."""
    count, account = 4, tmp_path / "p.json"
    plan = Plan(patients=10, batch=1, epochs=1, rounds=1)
    job = PrivacySettings(epsilon=1000, noise=1.0)
    # Enough for one of them, and not for two.
    alone, two = (epsilon([Release(1.0, 0.1, 10 * runs)], 1e-5) for runs in (1, 2))
    runs = [
        Privacy("site-1", Terms(1000, 1e-5, job, of_all=(alone + two) / 2), plan, Account(account, f"run-{number}"))
        for number in range(count)
    ]
    together = Barrier(count)

    def charge(privacy: Privacy) -> bool:
        assert privacy.noise == 1.0
        together.wait()
        try:
            privacy.charge(1, 10)
        except BudgetSpent:
            return False
        return True

    with ThreadPoolExecutor(count) as pool:
        charged = list(pool.map(charge, runs))
    assert charged.count(True) == 1
    assert len(Ledger(account, "another").of_others()) == 1


def of_site(tmp_path, run, job=PrivacySettings(), rounds=1, **site):  # noqa: B008 (frozen)
    """A run with 100 patients, 10 of them in each of its 10 steps a round, at a site with a budget of its own."""
    terms = Terms.agreed(job, SitePrivacy(delta=1e-5, **site))
    assert terms is not None
    return Privacy("site-1", terms, Plan(100, 10, 1, rounds), Account(tmp_path / "p.json", run))


def rounds_until_spent(privacy: Privacy) -> int:
    for count in range(10_000):
        try:
            privacy.charge(count + 1, privacy.steps_per_epoch)
        except BudgetSpent:
            return count
    raise AssertionError("the budget never ends")


def test_no_run_takes_more_than_the_site_gives_a_run(tmp_path) -> None:
    """A first job of one round took 2.995 of the 3 that the site had for all its jobs."""
    jobs = PrivacySettings(), PrivacySettings(epsilon=1000), PrivacySettings(epsilon=1000, noise=0.2)
    for number, job in enumerate(jobs):
        run = of_site(tmp_path, f"run-{number}", job, epsilon=3.0, per_run=1.0)
        assert rounds_until_spent(run) == 1
        assert 0.9 < run.spent()["epsilon"] <= 1 and run.spent()["budget"] == 1
    # Together no more than if each had had its share: three runs of epsilon 1.
    assert epsilon(Ledger(tmp_path / "p.json", "another").of_others(), 1e-5) <= 3
    with pytest.raises(BudgetSpent, match="the privacy budget of the site for one run is spent"):
        run.charge(2, 10)


def test_a_job_that_asks_for_less_than_the_share_gets_that(tmp_path) -> None:
    run = of_site(tmp_path, "run", PrivacySettings(epsilon=0.5), epsilon=3.0, per_run=1.0)
    assert rounds_until_spent(run) == 1 and run.spent()["budget"] == 0.5
    with pytest.raises(BudgetSpent, match="of the run is spent"):
        run.charge(2, 10)


def test_the_noise_that_the_site_chooses_holds_where_the_job_asks_for_less(tmp_path) -> None:
    """A job with noise 0.6 took 8.34 of 10 in the first of its 1000 rounds."""
    site = of_site(tmp_path, "site", rounds=8, epsilon=10.0)
    for number, noise in enumerate((0.6, 0.2)):
        run = of_site(tmp_path / str(number), "run", PrivacySettings(noise=noise), rounds=8, epsilon=10.0)
        assert run.noise == site.noise > 0.6
    # All of the rounds fit, and no more.
    assert rounds_until_spent(run) == 8
    # More noise than the site would choose is the job's own business; so is any where the site demands nothing.
    assert of_site(tmp_path / "more", "run", PrivacySettings(noise=50), rounds=8, epsilon=10.0).noise == 50
    assert of_site(tmp_path / "job", "run", PrivacySettings(epsilon=10, noise=0.6), rounds=8).noise == 0.6


def test_a_budget_that_is_raised_later_is_planned_anew(tmp_path) -> None:
    """With nothing left, the least noise was chosen and kept: the first round after a rise took most of it."""
    assert rounds_until_spent(of_site(tmp_path, "first", epsilon=1.0)) == 1
    with pytest.raises(BudgetSpent, match="of the site for all its runs is spent: no noise is enough") as refused:
        of_site(tmp_path, "second", rounds=4, epsilon=0.9).charge(1, 10)
    assert refused.value.spent["epsilon"] == 0 and refused.value.spent["noise"] is None
    raised = of_site(tmp_path, "second", rounds=4, epsilon=2.0)
    assert rounds_until_spent(raised) == 4 and raised.noise > 1


def test_a_share_needs_a_budget_that_it_is_a_share_of() -> None:
    with pytest.raises(ValidationError, match="per_run"):
        SitePrivacy(per_run=1.0)
    with pytest.raises(ValidationError, match="per_run"):
        SitePrivacy(epsilon=1.0, per_run=2.0)
