from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import nvflare
import pytest
import torch

import fedmepd
from fedmepd.cli.program import main
from fedmepd.comparing.run import Run
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation import results
from fedmepd.evaluation.runs_below import files_below
from tests.comparing import runs as comparable
from tests.evaluation import runs


def test_keys_that_others_rely_on() -> None:
    run = runs.finished()
    assert {key: run[key] for key in ("method", "seed", "rounds", "round", "seconds", "status", "run_name")} == {
        "method": "fedmepd",
        "seed": 7,
        "rounds": 3,
        "round": 3,
        "seconds": 61.7,
        "status": "finished",
        "run_name": "",
    }
    assert (run["trials"], run["evaluation"]) == (1, 1)
    assert run["version"] == fedmepd.__version__
    assert run["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    # As `pip list` has it; a build for the CPU may add a part that the module's own version shows.
    assert run["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert run["versions"]["nvflare"] == nvflare.__version__
    assert run["timing"] == runs.TIMING
    assert run["settings"]["network"]["width"] == 8
    for entry in (run["server"], *run["sites"]):
        assert entry.keys() == {
            "name",
            "modalities",
            "cases",
            "test",
            "validation",
            "personal_share",
            "untested",
            "joined",
            "rounds_taken",
            "rounds_missed",
            "limited",
            "test_cases",
            "test_fingerprint",
            "privacy",
            "ended",
            "work",
        }
    assert run["sites"][0]["cases"] == {"train": 8, "validation": 2, "test": 4}
    assert run["sites"][0]["test"].keys() == {"dice", "mdsc", "hd95_mm", "empty", "nsd", "lesions"}


def test_sites_stand_in_their_order() -> None:
    assert [site["name"] for site in runs.finished()["sites"]] == ["site-1", "site-2", "site-10"]
    assert runs.finished()["sites"][2]["rounds_taken"] == [1, 3]


def test_mean_is_over_the_tested_sites() -> None:
    mean = runs.finished()["mean"]
    # site-1 and site-10; the server is no site, site-2 has no test case.
    assert mean["mdsc"] == pytest.approx((0.75 + 0.5) / 2)
    assert mean["dice"] == pytest.approx({"WT": 0.75, "TC": 0.75, "ET": 0.375})
    assert mean["hd95_mm"] == pytest.approx({"WT": 6, "TC": 6, "ET": 12})
    assert mean["nsd"] == pytest.approx({"WT": 0.75, "TC": 0.75, "ET": 0.375})
    lesions = {"dice": 0.375, "hd95_mm": 60, "found": 8, "missed": 2}
    assert mean["lesions"] == {
        region: pytest.approx(lesions | {"invented": 2 * number}) for number, region in enumerate(("WT", "TC", "ET"))
    }
    assert mean["personal_share"] == pytest.approx(0.1)
    assert mean["validation"]["mdsc"] == pytest.approx(0.6)


def test_nothing_tested_yet() -> None:
    mean = runs.running()["mean"]
    assert mean["mdsc"] is None and mean["dice"] is None and mean["hd95_mm"] is None and mean["lesions"] is None
    assert mean["validation"]["mdsc"] == pytest.approx(0.6)


def test_written_and_read_back(tmp_path: Path) -> None:
    run = runs.finished()
    results.write(tmp_path / "results", run, {})
    assert results.read(tmp_path / "results" / "results.json") == run
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "history.json",
        "results.json",
        "results.md",
    ]
    assert "| site-10 | T2 |" in (tmp_path / "results" / "results.md").read_text()


def test_nan_is_no_result(tmp_path: Path) -> None:
    results.write(tmp_path, runs.running(), {})
    before = (tmp_path / "results.json").read_bytes()
    run = runs.finished()
    run["seconds"] = float("nan")
    with pytest.raises(ValueError):
        results.write(tmp_path, run, {})
    assert (tmp_path / "results.json").read_bytes() == before


PLACES = {
    "the folder itself": "results.json",
    "run folder": "results/results.json",
    "downloaded job": "workspace/results/results.json",
    "folder of downloaded jobs": "0a1b2c3d/workspace/results/results.json",
    "simulator": "server/simulate_job/results/results.json",
    "job.py": "fedmepd_brats/server/simulate_job/results/results.json",
    "server in production": "0a1b2c3d/results/results.json",
    "project folder": "server.hospital.org/0a1b2c3d/results/results.json",
    "POC": "example_project/prod_00/server/0a1b2c3d/results/results.json",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_found_in(place: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    assert results.find(tmp_path) == path
    assert results.find(path) == path


def test_the_newest_of_several(tmp_path: Path) -> None:
    for job, age in (("a", 300), ("b", 100), ("c", 200)):
        path = tmp_path / job / "results" / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        os.utime(path, (1e9 - age, 1e9 - age))
    assert results.find(tmp_path) == tmp_path / "b" / "results" / "results.json"


def test_all_of_several_each_once_and_by_its_name(tmp_path: Path) -> None:
    for job, age in (("a", 300), ("b", 100), ("c", 200)):
        path = tmp_path / job / "server" / "simulate_job" / "results" / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "latest").symlink_to("a")
    found = [results.run_folder(path) for path in results.find_all(tmp_path)]
    assert found == [tmp_path / "b", tmp_path / "c", tmp_path / "a"]
    # A link that the user names is the user's name.
    assert results.run_folder(results.find(tmp_path / "latest")) == tmp_path / "latest"


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("w/run/server/simulate_job/results/results.json", "w/run"),
        ("job-1/workspace/results/results.json", "job-1"),
        ("server/job-1/results/results.json", "server/job-1"),
        ("results.json", "."),
    ],
)
def test_the_folder_that_a_run_is_known_by(file: str, folder: str) -> None:
    assert results.run_folder(Path(file)) == Path(folder)


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "a" / "results.json").mkdir(parents=True)
    with pytest.raises(FedMEPDError) as caught:
        results.find(tmp_path)
    assert str(caught.value) == (
        f"no run in {tmp_path}: expected a run folder, a workspace of the simulator or of POC, a downloaded job, or a "
        "folder of jobs at a server. A run's first results are written when its round 0 is over"
    )
    with pytest.raises(FedMEPDError, match="does not exist"):
        results.find(tmp_path / "nowhere")


@pytest.mark.parametrize("command", ["results", "report"])
def test_a_folder_far_above_runs(command: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The runs of a comparison, two jobs of the simulator, and what nobody looks into: hidden folders and links."""
    for place in (
        "c/fedavg/seed-10",
        "c/fedavg/seed-9",
        "c/w/a/server/simulate_job/results",
        "c/x/y/results",
        "c/.z/a/b",
    ):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "results.json").write_text("{}")
    (tmp_path / "c/link").symlink_to(tmp_path / "c", target_is_directory=True)
    assert main([command, str(tmp_path)]) == 2
    below = [f"{tmp_path}/c/{place}" for place in ("fedavg/seed-9", "fedavg/seed-10", "w/a", "x/y")]
    assert capsys.readouterr().err == (
        f"fedmepd: no run in {tmp_path}, but below it: {', '.join(below)}. Name one of them; "
        f"`fedmepd compare show {tmp_path}` compares all of them\n"
    )


def test_many_runs_below_and_a_folder_without_end(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "many/of" / f"seed-{number}").mkdir(parents=True)
        (tmp_path / "many/of" / f"seed-{number}" / "results.json").write_text("{}")
    with pytest.raises(FedMEPDError, match=r"of/seed-9 and more\. Name one"):
        results.find(tmp_path)
    deep = tmp_path / "deep" / "/".join("abcdefghijklm")
    deep.mkdir(parents=True)
    (deep / "results.json").write_text("{}")
    with pytest.raises(FedMEPDError, match="no run in .*: expected"):
        results.find(tmp_path / "deep")
    assert len(list(files_below(tmp_path / "many", "results.json", most_folders=5))) == 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "cannot be read"),
        ('{"method": "fedm', "cannot be read"),
        ("[]", "an array"),
        ("{}", "json: method, run_name, seed, rounds, round and 8 more are missing"),
        (
            '{"method": "fedmepd", "seed": 0, "rounds": 1}',
            "json: run_name, round, settings, version, status and 5 more",
        ),
    ],
)
def test_another_file(content: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(FedMEPDError, match=expected) as caught:
        results.read(path)
    assert str(path) in str(caught.value)


def test_a_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FedMEPDError, match="cannot be read"):
        results.read(path)


def test_a_site_as_an_older_version_wrote_it(tmp_path: Path) -> None:
    run = runs.finished()
    del run["sites"][1]["rounds_missed"]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(run))
    with pytest.raises(
        FedMEPDError, match=r"results.json: sites.1.rounds_missed is missing. .* with the version that wrote it"
    ):
        results.read(path)


def test_a_broken_part_is_told_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(runs.finished() | {"mean": {}}))
    with pytest.raises(FedMEPDError) as caught:
        results.read(path)
    assert str(caught.value) == (
        f"{path}: mean: mdsc, dice, hd95_mm, validation, personal_share are missing. This is no results.json of this "
        "version of fedmepd: restore it if it is damaged, or read it with the version that wrote it"
    )


def shortened() -> dict:
    """What docs/results keeps of a run: all that a comparison reads."""
    return json.loads(Run.model_validate(comparable.run("fedmepd", 0, comparable.scores(0))).model_dump_json())


@pytest.mark.parametrize("command", ["results", "report"])
def test_a_shortened_run_is_for_comparisons(command: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = comparable.write(tmp_path, shortened())
    assert main([command, str(path.parent)]) == 2
    assert capsys.readouterr().err == (
        f"fedmepd: {path} is a shortened run, such as those in docs/results: only `fedmepd compare show {path.parent}` "
        "reads it\n"
    )
    assert main(["compare", "show", str(path.parent)]) == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda run: run["sites"][1]["test"].update(mdsc=7), "sites.1.test.mdsc = 7: expected"),
        (lambda run: run["server"].pop("cases"), "server.cases is missing"),
        (lambda run: run.update(seconds="long"), "seconds = 'long': expected a number"),
        (lambda run: run["sites"][1].update(name="server"), "two participants of one name"),
        (lambda run: run.pop("sites"), "timing, mean, sites are missing"),
    ],
)
def test_what_is_wrong_in_a_shortened_run_is_told(change, told: str, tmp_path: Path) -> None:
    run = shortened()
    change(run)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(run))
    with pytest.raises(FedMEPDError, match=f"results.json: {re.escape(told)}"):
        results.read(path)


def test_results_are_plain_json() -> None:
    assert json.loads(json.dumps(runs.finished(), allow_nan=False)) == runs.finished()


def test_a_site_that_tells_one_region_does_not_raise_the_mean_of_all() -> None:
    of_all = {"dice": {"WT": 0.9, "TC": 0.6, "ET": 0.3}, "mdsc": 0.6, "hd95_mm": {"WT": 1.0, "TC": 1.0, "ET": 1.0}}
    of_one = {"dice": {"WT": 0.9}, "mdsc": 0.9, "hd95_mm": {"WT": 1.0}}
    sites = [{**entry, "test": test} for entry, test in zip(runs.entries(), (of_all, of_one, None), strict=True)]
    run = results.build(
        runs.SETTINGS, status="finished", round=3, seconds=1, timing=runs.TIMING, server=runs.server(), sites=sites
    )
    assert run["mean"]["mdsc"] == pytest.approx(0.6)


EVIL = "site-1\x1b[2J\x1b]0;owned\x07\u202e\nsite-2 <script>"


@pytest.mark.parametrize("command", [["results"], ["report"]])
def test_results_of_a_stranger(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Their texts go to a terminal and a page: control characters would rewrite what is on it."""
    run = runs.finished()
    run["sites"][0] |= {"name": EVIL, "rounds_missed": [{"round": 2, "reason": EVIL * 1000}], "modalities": [EVIL]}
    run["sites"][1] |= {"untested": EVIL, "test": None}
    run["run_name"] = EVIL
    (tmp_path / "results.json").write_text(json.dumps(run))
    (tmp_path / "history.json").write_text(json.dumps({EVIL: {"validation": [], "rounds": [], "personal": {}}}))
    assert main([*command, str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.splitlines()) and len(said) < 20_000
    assert r"site-1\x1b[2J" in said or command == ["report"]
    for page in tmp_path.rglob("*.html"):
        text = page.read_text()
        assert all(line.isprintable() for line in text.splitlines()) and "<script>" not in text


def test_results_that_take_all_memory(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(runs.finished() | {"settings": json.loads("[" * 40 + "]" * 40)}))
    with pytest.raises(FedMEPDError, match="nested more than 32 deep"):
        results.read(file)
    # Zeros that take no room on the disk.
    os.truncate(file, 2**27 + 1)
    with pytest.raises(FedMEPDError, match="more than 128 MiB"):
        results.read(file)
