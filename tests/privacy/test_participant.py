"""What a participant chooses before its first round."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from fedmepd.config import PrivacySettings
from fedmepd.privacy.accountant import Release, epsilon
from fedmepd.privacy.ledger import Ledger
from fedmepd.privacy.participant import Account, BudgetSpent, Plan, Privacy, Terms


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
