from __future__ import annotations

import pytest

from fedmepd.cli.settings_options import changes
from fedmepd.errors import SettingsError


def test_values_are_json_or_text() -> None:
    given = ["training.local_epochs=2", "training.learning_rate=4e-3", "training.precision=float32", "rounds = 7"]
    given += ["augmentation.flips=false", "data.split_seed=null", "run_name=a=b"]
    assert changes(given, {}) == {
        "training": {"local_epochs": 2, "learning_rate": 0.004, "precision": "float32"},
        "rounds": 7,
        "augmentation": {"flips": False},
        "data": {"split_seed": None},
        "run_name": "a=b",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["rounds"], "--set rounds: expected KEY=VALUE"),
        (["=3"], "expected KEY=VALUE"),
        (["training..crop=3"], "expected KEY=VALUE"),
        (["rounds=1", "rounds=2"], "rounds is given twice"),
        (["training=1", "training.crop=16"], "training is given twice"),
        (["training.crop=16", "training=1"], "training is given twice"),
        (["method=local"], "--set method=local: say --method"),
    ],
)
def test_what_cannot_be(given: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        changes(given, {"method": "--method"})
