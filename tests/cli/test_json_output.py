"""What commands print with ``--json`` fits the keys that docs/reference.md promises, and nothing else is printed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedmepd.cli import main
from fedmepd.cli.federation import json_line
from fedmepd.cli.json_output import OUTPUTS, Comparison, DataCheck, Evaluation, Results, WatchLine, keys
from fedmepd.evaluation import results
from fedmepd.flare.progress import lines_about
from tests.comparing import runs as compared
from tests.data.files import save, write_case
from tests.evaluation import runs
from tests.evaluation.shapes import sphere
from tests.flare.test_progress import LIVE

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Runs a command with ``--json``; returns its exit status and all that it printed on standard output."""
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))

    def command(*arguments: object) -> tuple[int, str]:
        status = main([*map(str, arguments), "--json"])
        return status, capsys.readouterr().out

    return command


def test_data_check_of_one_data_set(tmp_path: Path, printed) -> None:
    for name, modalities in (("a", ("T1", "FLAIR")), ("b", ("T1", "FLAIR")), ("c", ("T2",))):
        write_case(tmp_path / "data", name, modalities, **({"label": None} if name == "c" else {}))
    (tmp_path / "data" / "a" / "a_t1.nii.gz").write_bytes(b"no image")
    status, out = printed("data", "check", tmp_path / "data")
    found = DataCheck.model_validate_json(out)
    assert status == 1 and found.errors == 1 and found.task == "brats"
    [error] = [one for one in found.findings if one.severity == "error"]
    assert error.count == 1 and len(error.texts) == 1 and "a_t1.nii.gz" in error.texts[0]
    [only] = found.data_sets
    assert (only.name, only.cases, only.patients, only.labelled, only.parts) == (None, 3, 3, 2, None)
    assert [(one.modalities, one.cases) for one in only.modalities] == [(["FLAIR", "T1"], 2), (["T2"], 1)]
    status, out = printed("data", "check", tmp_path / "data", "--anonymous")
    assert status == 1 and "a_t1" not in out and DataCheck.model_validate_json(out).findings[0].texts is None


def test_data_check_of_sites(tmp_path: Path, printed, capsys: pytest.CaptureFixture) -> None:
    """Two hospitals with a manifest each, of which the second has a case of the first."""
    for site, names in (("north", "abcdefghij"), ("south", "klmnopqrst")):
        for name in names:
            write_case(tmp_path / site, name, ("T1",))
    shutil.copy(tmp_path / "north" / "a" / "a_t1.nii.gz", tmp_path / "south" / "k" / "k_t1.nii.gz")
    for site in ("north", "south"):
        assert main(["data", "init", str(tmp_path / site)]) == 0
    # What `init` has printed.
    capsys.readouterr()
    status, out = printed("data", "check", tmp_path)
    found = DataCheck.model_validate_json(out)
    assert [one.name for one in found.data_sets] == ["north", "south"]
    assert found.data_sets[0].parts == {"train": 6, "validation": 1, "test": 3, "inference only": 0}
    assert status == 1 and len(found.overlaps) == 1 and "north and south share" in found.overlaps[0]


def test_results(tmp_path: Path, printed) -> None:
    for name, run in (("over", runs.finished()), ("on", runs.running())):
        results.write(tmp_path / name, run, {})
        status, out = printed("results", tmp_path / name)
        found = Results.model_validate_json(out)
        assert status == 0 and json.loads(out) == json.loads((tmp_path / name / "results.json").read_text())
        assert found.status == run["status"] and [site.name for site in found.sites] == ["site-1", "site-2", "site-10"]


def test_evaluate(tmp_path: Path, printed) -> None:
    for name, centre in (("a", (9, 9, 9)), ("b", (9, 10, 9))):
        for kind, at in (("labels", (9, 9, 9)), ("predictions", centre)):
            values = np.where(sphere(at) == 3, 4, sphere(at)).astype("uint8")
            place = f"{name}/{name}_seg.nii.gz" if kind == "labels" else f"{name}.nii.gz"
            save(tmp_path / kind / place, values, np.diag([-1.0, -1, 1, 1]))
    files = ("--predictions", tmp_path / "predictions", "--labels", tmp_path / "labels")
    status, out = printed("evaluate", *files, "--out", tmp_path / "out")
    found = Evaluation.model_validate_json(out)
    assert status == 0 and json.loads(out) == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found.summary.cases == 2 and found.cases[0].mdsc == 1 and found.cases[1].mdsc < 1


def test_compare_show(tmp_path: Path, printed) -> None:
    for name, amount in (("fedmepd", 0.125), ("local", 0.0)):
        for seed in range(2):
            compared.write(tmp_path / "runs", compared.run(name, seed, compared.scores(seed) + amount))
    status, out = printed("compare", "show", tmp_path / "runs", "--out", tmp_path / "out")
    found = Comparison.model_validate_json(out)
    assert status == 0 and (found.methods, found.against, found.task) == (["fedmepd", "local"], "fedmepd", "brats")
    assert found.differences["local"].columns["mean of the sites"].mean == pytest.approx(0.125)


def test_watch() -> None:
    """The lines of a job's events; tests/flare has where they come from."""
    for event, line in lines_about(LIVE).items():
        found = WatchLine.model_validate_json(json_line(event, line, LIVE))
        assert (found.event, found.line, found.state) == (event, line, LIVE)


def test_every_key_is_in_the_reference() -> None:
    text = REFERENCE.read_text().partition("\n## JSON output\n")[2].partition("\n## ")[0]
    for command, model in OUTPUTS.items():
        table = text.partition(f"\n### `{command} --json`\n")[2].partition("\n### ")[0]
        rows = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
        assert rows == [key for key, _ in keys(model)] and len(rows) == len(set(rows))


def test_how_keys_within_others_are_written() -> None:
    """By hand: lists, objects that may be missing, and objects by name."""
    of_results = dict(keys(Results))
    for key in ("seed", "mean.validation.mdsc", "sites[].cases.test", "sites[].rounds_missed[].reason", "settings"):
        assert key in of_results
    assert "scores.NAME.NAME.mean" in dict(keys(Comparison)) and "summary.regions.NAME.dice.low" in dict(
        keys(Evaluation)
    )
