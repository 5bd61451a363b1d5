from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import standstill
from benchmarks.standstill import UPDATES, UpdateWatch, curves, exchanged, validations
from fedmepd.experiments.plan import PlannedRun
from fedmepd.experiments.run_folder import RunFolder
from fedmepd.federation.exchange import Payload, Update
from fedmepd.federation.server_state import ServerState
from tests import tiny


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tiny.Tiny:
    return tiny.Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def made(cohort: tiny.Tiny, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run in which filters become personal, with its updates."""
    folder = RunFolder(tmp_path_factory.mktemp("out") / "fedmepd-seed-0")
    run = PlannedRun("fedmepd-seed-0", tiny.settings(), tuple(tiny.SITES), cohort.machine.data, "in_process")
    folder.begin(run)
    standstill.make(run, folder, cohort.machine)
    return folder


def test_curves_by_hand() -> None:
    """Two filters at level 4, four at level 1, two in the classifier: one, two and none are personal at the end."""
    filters = {"levels.4.a": 2, "levels.1.b": 4, "classify": 2}
    personal = {"levels.4.a": [[2, 1]], "levels.1.b": [[1, 1], [2, 2]]}
    rounds = [{"round": 1, "total": 4.0}, {"round": 2, "total": 3.0}]
    validation = [{"round": 1, "mdsc": 0.25}, {"round": 2, "mdsc": 0.5}]
    site = {"rounds": rounds, "validation": validation, "personal": personal}
    other = {"rounds": rounds, "validation": [{"round": 2, "mdsc": 0.25}], "personal": {}}
    rows = curves({"server": site, "site-1": site}, filters)
    assert rows == [
        ["1", "4.000", "0.250", "12%", "0%", "0%", "0%", "25%", "0%"],
        ["2", "3.000", "0.500", "38%", "50%", "0%", "0%", "50%", "0%"],
    ]
    assert curves({"site-1": site, "site-2": other}, filters)[-1][1:4] == ["3.000", "0.375", "19%"]


def test_norm_and_cosine_by_hand(tmp_path: Path) -> None:
    """Site a shares the first of two filters, b and c share both. Encoders belong to one site each."""
    watch = UpdateWatch(tmp_path / "updates")
    changes = {"a": [[3.0]], "b": [[4.0], [1.0]], "c": [[0.0], [1.0]]}
    for site, change in changes.items():
        left = torch.tensor([1, 0 if site == "a" else 1], dtype=torch.uint8)
        watch.sent(site, Payload(1, {"patience.decoder.x": left}))
        update = {"decoder.x.weight": torch.tensor(change), f"encoders.{site}.weight": torch.tensor([2.0])}
        watch.came(site, Update(1, update))
    watch.close()
    line = json.loads((tmp_path / "updates").read_text())
    assert line["a"]["encoders."] == {"norm": 2.0, "cosine": None}
    # The others' means: of a (4 + 0) / 2 at the filter it shares; of b (3 + 0) / 2 and 1 / 1; of c (3 + 4) / 2 and 1.
    of = {site: line[site]["decoder."] for site in changes}
    assert of["a"] == {"norm": 3.0, "cosine": pytest.approx(1.0)}
    assert of["b"] == {"norm": pytest.approx(17**0.5), "cosine": pytest.approx((4 * 1.5 + 1) / (17 * 3.25) ** 0.5)}
    assert of["c"]["cosine"] == pytest.approx(1 / (3.5**2 + 1) ** 0.5)


@pytest.mark.slow
def test_a_run_is_read(made: RunFolder, cohort: tiny.Tiny, capsys: pytest.CaptureFixture) -> None:
    assert standstill.main([str(made.path)], machine=cohort.machine) == 0
    printed = capsys.readouterr().out
    assert all(head in printed for head in ("training loss", "norm, decoder", "all shared"))
    lines = [json.loads(line) for line in (made.path / UPDATES).read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert all(set(line) == {"round", *tiny.SITES} for line in lines)


def test_trained_is_what_the_run_validated(made: RunFolder, cohort: tiny.Tiny) -> None:
    found = validations(made.planned(), made.path / "state", cohort.machine)
    results = made.results()
    for site in results["sites"]:
        assert found[site["name"]]["trained"] == pytest.approx(site["validation"]["mdsc"], abs=1e-6)


def test_what_is_exchanged(made: RunFolder) -> None:
    run, folder = made.planned(), made.path / "state"
    server = ServerState(folder / "server", run.settings).load()["method"]
    networks = {name: get().state_dict() for name, get in exchanged(run, folder, "site-1", server).items()}
    place = server["filters"]["sites"].index("site-1")
    personal = {layer: rows[place] == 0 for layer, rows in server["filters"]["state"]["patience"].items()}
    some = next(layer for layer, mask in personal.items() if mask.any() and not mask.all())
    key, mask = f"{some}.weight", personal[some]
    assert (networks["sent"][key][~mask] == server["weights"][key][~mask]).all()
    assert (networks["sent"][key][mask] == networks["trained"][key][mask]).all()
    assert (networks["all shared"][key] == server["weights"][key]).all()
    assert (networks["own decoder"][key] == networks["trained"][key]).all()
    encoder = next(name for name in networks["sent"] if name.startswith("encoders.T1ce"))
    assert (networks["own decoder"][encoder] == server["weights"][encoder]).all()
    # The levels together are what is shared again, but for the classifier.
    levels = [name for name in networks if name.startswith("level ")]
    assert len(levels) == 4
    for level in levels:
        differ = {key for key in networks["sent"] if (networks[level][key] != networks["sent"][key]).any()}
        assert all(key.startswith(f"decoder.levels.{level[-1]}.") for key in differ)


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert standstill.main([str(tmp_path)]) == 2
    assert "run.json" in capsys.readouterr().err
