from __future__ import annotations

import pytest
import torch

import benchmarks.step
from benchmarks.agreement import BOUNDS, Agreement, Disagreement, _Step, check, compare, difference, worst
from benchmarks.step import summarise
from benchmarks.task import Product, Task


def test_difference_by_hand() -> None:
    """Gradients (3, 4) and (0, 5) of what the second has; the first has another weight, which does not count."""
    first = _Step(
        2.0, torch.tensor([0.5, 0.5]), {"b": torch.tensor([[4.0]]), "a": torch.tensor([3.0]), "c": torch.ones(1)}
    )
    second = _Step(2.1, torch.tensor([0.75, 0.25]), {"a": torch.tensor([0.0]), "b": torch.tensor([[5.0]])})
    found = difference(first, second)
    assert found.loss == pytest.approx(0.05)
    assert found.probability == pytest.approx(0.25)
    assert found.norm == pytest.approx(0.0)
    # (3, -1) against 5; 4 * 5 / 25.
    assert found.vector == pytest.approx(10**0.5 / 5)
    assert found.cosine == pytest.approx(0.8)


def test_bounds() -> None:
    fits = {"loss": 1e-3, "probability": 1e-3, "norm": 0.019, "vector": 0.5, "cosine": 0.9}
    check(Agreement(**fits), "bfloat16")
    for change in ({"loss": 0.02}, {"norm": 0.021}, {"norm": float("nan")}):
        with pytest.raises(Disagreement, match=next(iter(change))):
            check(Agreement(**fits | change), "bfloat16")
    check(Agreement(**fits | {"norm": 0.021}), "bfloat16", slack=2.0)
    with pytest.raises(Disagreement, match="vector"):
        check(Agreement(**dict.fromkeys(fits, 1e-7) | {"vector": 0.011}), "float32")
    assert BOUNDS.keys() == {"float64", "float32", "bfloat16"}


def test_worst() -> None:
    one = {"loss": 1e-3, "probability": 1e-4, "norm": 0.5, "vector": 0.25, "cosine": 0.9}
    other = {"loss": 1e-2, "probability": 1e-5, "norm": 0.25, "vector": 0.5, "cosine": 0.8}
    [*_, row] = worst([{"float32": one}, {"float32": other}]).splitlines()
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "float32", "1.0e-02", "1.0e-04", "5.0e-01", "5.0e-01", "0.8000",
    ]  # fmt: skip


def test_mean_over_sites_counts_equal_sites() -> None:
    rows = [
        {"modalities": ["T1"], "ratio": {"median": 6.0}},
        {"modalities": ["T2"], "ratio": {"median": 7.0}},
        {"modalities": ["T1", "T2"], "ratio": {"median": 2.0}},
    ]
    found = summarise(rows, [("T1",), ("T2",), ("T1", "T2"), ("T1", "T2"), ("T1", "T2")])
    assert found == {"mean_ratio": pytest.approx(19 / 5), "lowest_single_modality_ratio": 6.0}
    assert summarise(rows, [("T1", "T2")])["lowest_single_modality_ratio"] is None


class Different(Product):
    """One bias of the fusion's perceptrons is another."""

    def __init__(self, task: Task):
        super().__init__(task)
        with torch.no_grad():
            self.network.decoder.levels["1"].fusion.weigh.bias[0] += 0.5


def test_compares_the_product_with_the_straightforward_formulation(monkeypatch, capsys) -> None:
    task = Task(("FLAIR", "T2"), width=4, crop=16)
    found = compare(task)
    assert found.keys() == {"float64", "straightforward float32", "float32"}
    assert "FLAIR T2, float64: loss" in capsys.readouterr().out
    monkeypatch.setattr(Task, "product", lambda task: Different(task))
    with pytest.raises(Disagreement, match="float64"):
        compare(task)


def test_nothing_is_measured_where_they_disagree(monkeypatch, capsys, tmp_path) -> None:
    def disagree(task: Task, slack: float) -> None:
        raise Disagreement("loss differs")

    def measured(*_) -> None:
        pytest.fail("steps were timed")

    monkeypatch.setattr(benchmarks.step, "compare", disagree)
    monkeypatch.setattr(benchmarks.step, "time_steps", measured)
    assert benchmarks.step.main(["--quick", "--json", str(tmp_path / "step.json")]) == 1
    assert "loss differs" in capsys.readouterr().err and not list(tmp_path.iterdir())
