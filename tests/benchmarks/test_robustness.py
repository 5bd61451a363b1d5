from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import robustness
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation import results
from fedmepd.federation.exchange import Update
from tests.evaluation import runs


def update() -> Update:
    return Update(1, {"w": torch.tensor([0.5, -0.25])}, {"cases": 3})


def test_only_the_culprits_updates_are_spoilt() -> None:
    for name, expected in {
        "scaled x1000": [500.0, -250.0],
        "scaled x100": [50.0, -25.0],
        "sign flipped": [-0.5, 0.25],
        "sign flipped x3": [-1.5, 0.75],
        "sign flipped x9": [-4.5, 2.25],
        "constant 0.05": [0.05, 0.05],
        "free rider": [0.0, 0.0],
    }.items():
        spoil = robustness.spoil(["site-7"], robustness.ATTACKS[name])
        honest = update()
        assert spoil("site-1", honest) is honest
        spoilt = spoil("site-7", update())
        torch.testing.assert_close(spoilt.tensors["w"], torch.tensor(expected))
        assert (spoilt.round, spoilt.report) == (1, {"cases": 3})


def test_attacks_on_the_decoder() -> None:
    changes = {
        "encoders.T1.a.weight": torch.full((2, 2), 6.0),
        "decoder.a.weight": torch.ones(2, 3),
        "decoder.b.weight": torch.tensor([[3.0, 4.0], [0.0, 1.0]]),
    }
    spoilt = robustness.ATTACKS["one filter"](changes, 1)
    # The norm is sqrt(4 * 36 + 6 + 26) = sqrt(176), all of it against (3, 4) / 5.
    expected = torch.tensor([[-0.6, -0.8], [0.0, 0.0]]) * 176**0.5
    torch.testing.assert_close(spoilt["decoder.b.weight"], expected)
    assert not spoilt["decoder.a.weight"].any() and not spoilt["encoders.T1.a.weight"].any()
    for number, factor in ((1, 1e-6), (2, -3.0)):
        spoilt = robustness.ATTACKS["weight H"](changes, number)
        torch.testing.assert_close(spoilt["decoder.a.weight"], torch.full((2, 3), factor))
        assert torch.equal(spoilt["encoders.T1.a.weight"], changes["encoders.T1.a.weight"])


def entry(name: str, mdsc: float, limited: int = 0) -> dict:
    return {"name": name, "test": {"mdsc": mdsc}, "limited": [{}] * limited, "rounds_missed": [{}]}


def run(a: float, b: float, culprit: float, server: float, limited: int = 0) -> dict:
    return {
        "sites": [entry("a", a), entry("b", b), entry("x", culprit, limited)],
        "server": entry("server", server),
    }


def test_row_by_hand() -> None:
    """The culprit's own score does not count."""
    row = robustness.row("attack", [run(0.4, 0.7, 0.0, 0.7, limited=4)], [run(0.5, 0.7, 0.0, 0.8)], ["x"])
    assert {key: round(value, 6) for key, value in row.items() if key != "run"} == {
        "others": 0.55,
        "others_difference": -0.05,
        "server": 0.7,
        "server_difference": -0.1,
        "limited": 4,
        "refused": 1,
    }


def test_row_of_three_seeds_by_hand() -> None:
    """Differences of -0.02, 0 and +0.02 have a standard error of 0.02 / sqrt(3), and t of two degrees is 4.3027."""
    baseline = [run(0.5, 0.5, 0.0, 0.8)] * 3
    found = [run(0.48, 0.48, 0.9, 0.8), run(0.5, 0.5, 0.9, 0.8), run(0.5, 0.54, 0.9, 0.8, limited=2)]
    row = robustness.row("attack", found, baseline, ["x"])
    assert row["others"] == pytest.approx(0.5) and row["others_difference"] == pytest.approx(0)
    assert row["others_interval"] == pytest.approx([-0.049683, 0.049683], abs=1e-6)
    assert row["server_interval"] == pytest.approx([0, 0])
    assert (row["limited"], row["refused"]) == (2, 3)


def test_a_finished_run_of_other_settings_or_sites_is_not_taken_for_this_one(tmp_path) -> None:
    """Else the figures of ``--trim 0.2`` would be those of an earlier call without it in the same folder."""
    sites = ("site-1", "site-2", "site-10")
    task = robustness.Task(robustness.HONEST, 3, sites, (), {"rounds": 3}, tmp_path)
    assert task.found() is None
    made = runs.finished() | {"settings": task.settings().model_dump(mode="json"), "seed": 3}
    results.write(tmp_path / "results", made, {})
    assert task.found() == made
    trimmed = replace(task, changes={"rounds": 3, "aggregation": {"trim": 0.2}})
    with pytest.raises(FedMEPDError, match=r"aggregation.trim was 0.0, now 0.2\): choose another --folder"):
        trimmed.found()
    with pytest.raises(FedMEPDError, match="other sites"):
        replace(task, sites=sites[:2]).found()
    results.write(tmp_path / "results", made | {"status": "running"}, {})
    assert trimmed.found() is None


@pytest.mark.slow
def test_command(tmp_path, capsys) -> None:
    """A thousandfold update is scaled down in every round; what is finished is not run again."""
    command = ["--quick", "--folder", str(tmp_path / "runs"), "--runs", "scaled x1000", "--seeds", "0", "1"]
    command += ["--at-once", "2"]
    robustness.main([*command, "--json", str(tmp_path / "first.json")])
    first = json.loads((tmp_path / "first.json").read_text())
    assert [row["run"] for row in first["rows"]] == ["without the site", "scaled x1000"]
    assert [row["limited"] for row in first["rows"]] == [0, 4]
    assert all(len(row["others_interval"]) == 2 for row in first["rows"])
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("results.json"))
    robustness.main([*command, "--json", str(tmp_path / "second.json")])
    assert json.loads((tmp_path / "second.json").read_text())["rows"] == first["rows"]
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")) == before
    assert "at most 0.03 may be lost" in capsys.readouterr().out
