"""What a participant chooses before its first round."""

from __future__ import annotations

import pytest

from fedmepd.config import PrivacySettings
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
