"""The choice of configurations, from curves written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmepd.errors import FedMEPDError
from fedmepd.experiments.plan import Plan
from fedmepd.experiments.tuning import choose, trials_of, validation


def plan(**of) -> Plan:
    content = {
        "methods": ["local", {"method": "fedavg", "tune": [{"training": {"learning_rate": 0.5}}]}],
        "seeds": [0],
        "sites": 2,
        "tune": {"seeds": [7, 8], "candidates": [{"training": {"learning_rate": 0.25}}]},
    }
    return Plan.model_validate(content | of)


def finish(run: Path, *sites: list[float], status: str = "finished") -> None:
    """Writes a run's validation curves, one list per site; the fusion site's is perfect."""
    run.mkdir(parents=True)
    histories = {f"site-{number}": curve for number, curve in enumerate(sites, 1)} | {"server": [1.0]}
    curves = {
        name: {"validation": [{"round": at, "mdsc": value} for at, value in enumerate(curve, 1)], "rounds": []}
        for name, curve in histories.items()
    }
    (run / "history.json").write_text(json.dumps(curves))
    (run / "results.json").write_text(json.dumps({"status": status}))


def test_trials_are_as_many_for_every_method() -> None:
    trials = trials_of(plan())
    assert [(trial.choice.name, trial.more) for trial in trials] == [
        ("local", {}),
        ("local", {"training": {"learning_rate": 0.25}}),
        ("fedavg", {}),
        ("fedavg", {"training": {"learning_rate": 0.5}}),
    ]
    assert [run.name for run in trials[3].runs] == ["fedavg-trial-2-seed-7", "fedavg-trial-2-seed-8"]
    assert [run.settings.training.learning_rate for run in trials[3].runs] == [0.5, 0.5]
    assert trials[2].runs[0].settings.training.learning_rate == 4e-3


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ({"tune": None}, "no section tune"),
        ({"tune": {"seeds": [7]}}, "the same number of trials.*: local 1, fedavg 2"),
        ({"tune": {"seeds": [7]}, "methods": ["local"]}, "no candidates to choose from"),
    ],
)
def test_a_plan_that_cannot_be_tuned(of: dict, expected: str) -> None:
    with pytest.raises(FedMEPDError, match=expected):
        trials_of(plan(**of))


def test_the_best_mean_of_the_sites_best_validations_is_chosen(tmp_path) -> None:
    """Of local: (0.5 + 0.25) / 2 = 0.375 and (0.25 + 0.75) / 2 = 0.5. The best validation counts, not the last."""
    trials = trials_of(plan())
    finish(tmp_path / "local-trial-1-seed-7", [0.5, 0.0], [0.25, 0.0])
    finish(tmp_path / "local-trial-1-seed-8", [0.25], [0.75])
    finish(tmp_path / "local-trial-2-seed-7", [0.25], [0.25])
    finish(tmp_path / "local-trial-2-seed-8", [0.25], [0.25])
    finish(tmp_path / "fedavg-trial-1-seed-7", [0.25], [0.25])
    finish(tmp_path / "fedavg-trial-1-seed-8", [0.25], [0.25])
    finish(tmp_path / "fedavg-trial-2-seed-7", [0.25], [0.5])
    finish(tmp_path / "fedavg-trial-2-seed-8", [0.25], [0.25])
    chosen = choose(trials, tmp_path)
    assert chosen["local"] == {
        "chosen": {},
        "trials": 2,
        "scores": [
            {"settings": {}, "mdsc": pytest.approx(0.4375)},
            {"settings": {"training": {"learning_rate": 0.25}}, "mdsc": pytest.approx(0.25)},
        ],
    }
    assert chosen["fedavg"]["chosen"] == {"training": {"learning_rate": 0.5}}


def test_a_trial_that_failed_is_not_chosen_and_counts(tmp_path) -> None:
    trials = trials_of(plan(methods=["local"]))
    finish(tmp_path / "local-trial-1-seed-7", [0.9], [0.9])
    finish(tmp_path / "local-trial-1-seed-8", [0.9], [0.9], status="running")
    for seed in (7, 8):
        finish(tmp_path / f"local-trial-2-seed-{seed}", [0.25], [])
    chosen = choose(trials, tmp_path)["local"]
    assert (chosen["chosen"], chosen["trials"]) == ({"training": {"learning_rate": 0.25}}, 2)
    assert [trial["mdsc"] for trial in chosen["scores"]] == [None, 0.25]
    with pytest.raises(FedMEPDError, match="local: no trial is finished with validation scores"):
        choose(trials[:1], tmp_path)


def test_no_site_validates(tmp_path) -> None:
    finish(tmp_path / "run", [], [])
    assert validation(tmp_path / "run") is None and validation(tmp_path / "missing") is None
