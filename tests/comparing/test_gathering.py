from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from fedmepd.comparing.gathering import RunsMissing, find_all, gather
from fedmepd.errors import FedMEPDError
from tests.comparing import runs


def write(folder: Path, method: str, seed: int, **changes) -> Path:
    return runs.write(folder, runs.run(method, seed, runs.scores(seed), **changes))


def test_everything_below_some_folders(tmp_path: Path) -> None:
    """Run folders, a results.json itself, a downloaded job; a copy of a run counts once."""
    first, second = write(tmp_path / "a", "fedmepd", 1), write(tmp_path / "b", "local", 1)
    job = tmp_path / "downloaded" / "0a1b" / "workspace" / "results"
    job.mkdir(parents=True)
    shutil.copy(second, job / "results.json")
    assert find_all([tmp_path / "a", second, tmp_path / "downloaded"]) == [first, second]


def test_methods_and_seeds_in_order(tmp_path: Path) -> None:
    for method in ("local", "fedmepd"):
        for seed in (10, 2):
            write(tmp_path, method, seed)
    gathered = gather([tmp_path])
    assert list(gathered.methods) == ["fedmepd", "local"] and gathered.seeds() == [2, 10]
    assert gathered.methods["local"][10].run.seed == 10 and not gathered.notes and not gathered.unused


def test_settings_make_several_methods_of_one(tmp_path: Path) -> None:
    for patience in (8, 12):
        for seed in (0, 1):
            changes = {"personalization": {"patience": patience}, "training": {"threads": seed + 1}, "trials": seed + 1}
            write(tmp_path / str(patience), "fedmepd", seed, settings=changes)
    assert list(gather([tmp_path]).methods) == [
        "fedmepd personalization.patience=8",
        "fedmepd personalization.patience=12",
    ]


def test_settings_that_an_older_version_did_not_have_count_as_at_their_defaults(tmp_path: Path) -> None:
    paths = [write(tmp_path, "fedmepd", seed) for seed in (0, 1)]
    content = json.loads(paths[0].read_text())
    assert content["settings"]["privacy"].pop("epsilon") == 0
    paths[0].write_text(json.dumps(content))
    assert list(gather([tmp_path]).methods) == ["fedmepd"]
    content["settings"]["privacy"]["epsilon"] = 8
    paths[0].write_text(json.dumps(content))
    assert len(find_all([tmp_path])) == 2
    with pytest.raises(FedMEPDError, match="no seed"):
        gather([tmp_path])


def test_a_plan_names_its_methods(tmp_path: Path) -> None:
    for name, patience in (("full", 10), ("all-shared", 1)):
        for seed in (0, 1):
            settings = {"personalization": {"patience": patience}}
            write(tmp_path / name, "fedmepd", seed, settings=settings, run_name=f"{name}-seed-{seed}")
    assert list(gather([tmp_path]).methods) == ["all-shared", "full"]
    # The same name in two plans.
    for seed in (0, 1):
        settings = {"personalization": {"patience": 3}}
        write(tmp_path / "other", "fedmepd", seed, settings=settings, run_name=f"full-seed-{seed}")
    assert list(gather([tmp_path]).methods) == [
        "all-shared",
        "full personalization.patience=3",
        "full personalization.patience=10",
    ]


def test_the_seeds_that_all_methods_have(tmp_path: Path) -> None:
    for method, seeds in (("fedmepd", (0, 1, 2)), ("local", (1, 2, 3))):
        for seed in seeds:
            write(tmp_path, method, seed)
    gathered = gather([tmp_path])
    assert gathered.seeds() == [1, 2]
    assert gathered.notes == [
        "fedmepd: not every method has seed 0, so that run of this method is not used",
        "local: not every method has seed 3, so that run of this method is not used",
    ]
    assert [(file.run.method, file.run.seed) for file, _ in gathered.unused] == [("fedmepd", 0), ("local", 3)]


def test_while_runs_go_on_the_methods_that_have_all_seeds(tmp_path: Path) -> None:
    for method, seeds in (("fedmepd", (0, 1, 2)), ("fedrep", (0, 2)), ("local", (0, 1, 2))):
        for seed in seeds:
            write(tmp_path, method, seed)
    gathered = gather([tmp_path], complete=True)
    assert list(gathered.methods) == ["fedmepd", "local"] and gathered.seeds() == [0, 1, 2]
    assert gathered.notes == ["fedrep: no finished run with seed 1, so it is left out"]
    assert [(file.run.method, file.run.seed) for file, _ in gathered.unused] == [("fedrep", 0), ("fedrep", 2)]
    assert gather([tmp_path]).seeds() == [0, 2]


def test_no_method_has_all_seeds(tmp_path: Path) -> None:
    for method, seeds in (("fedmepd", (0, 1)), ("local", (1, 2))):
        for seed in seeds:
            write(tmp_path, method, seed)
    with pytest.raises(RunsMissing, match=r"no method was run with every seed \(fedmepd: 0, 1; local: 1, 2\)"):
        gather([tmp_path], complete=True)


def test_unfinished_runs_are_listed(tmp_path: Path) -> None:
    write(tmp_path, "fedmepd", 0)
    write(tmp_path, "local", 0, status="running", round=2)
    gathered = gather([tmp_path])
    assert list(gathered.methods) == ["fedmepd"]
    assert gathered.notes == ["local, seed 0: not finished (round 2 of 4), not used"]
    assert [reason for _, reason in gathered.unused] == ["not finished"]
    write(tmp_path / "plan", "fedmepd", 3, status="running", round=1, run_name="one-anchor-seed-3")
    assert "one-anchor, seed 3: not finished (round 1 of 4), not used" in gather([tmp_path]).notes
    # Too few sites had anything left of their privacy budgets.
    write(tmp_path, "local", 4, round=3)
    assert "local, seed 4: not finished (round 3 of 4), not used" in gather([tmp_path]).notes


def set_mean(test: dict, **dice: float) -> None:
    """Changes means of regions, and the mean of these."""
    test["dice"].update(dice)
    test["mdsc"] = sum(test["dice"].values()) / len(test["dice"])


def nest(depth: int) -> dict:
    """Sections in sections."""
    made: dict = {}
    for _ in range(depth):
        made = {"a": made}
    return made


def refused(paths: list[Path], *parts: str) -> None:
    with pytest.raises(FedMEPDError) as caught:
        gather(paths)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_to_compare(tmp_path: Path) -> None:
    refused([tmp_path / "none"], str(tmp_path / "none"), "does not exist")
    refused([tmp_path], f"no results.json below {tmp_path}")
    write(tmp_path, "fedmepd", 0, status="running")
    refused([tmp_path], "found 1 run, none of them finished")


def test_no_common_seed(tmp_path: Path) -> None:
    for method, seed in (("fedmepd", 0), ("local", 1)):
        write(tmp_path, method, seed)
    refused([tmp_path], "no seed was run with every method", "fedmepd: 0; local: 1")


def test_two_runs_that_claim_the_same(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", "fedmepd", 0), write(tmp_path / "b", "fedmepd", 0, seconds=61.0)
    refused([tmp_path], "two runs of fedmepd with seed 0", str(first), str(second))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run.pop("sites"), "sites is missing"),
        (lambda run: run["sites"][0]["test_cases"].pop(), "site-1 has scores of 5 cases and 6 test cases"),
        (
            lambda run: set_mean(run["sites"][0]["test"], WT=0.99),
            "the mean Dice of WT is not the mean of its cases",
        ),
        (lambda run: run["sites"][1].update(test_fingerprint=None), "no test_fingerprint"),
        (lambda run: run["server"]["test_cases"][0]["empty"].update(ET="yes"), "server.test_cases.0.empty.ET"),
        (lambda run: run.update(seed="many"), "seed = 'many'"),
        # What a stranger may have written.
        (lambda run: run["sites"][0].update(name="site-1\x1b[2J"), r"sites.0.name = 'site-1\x1b[2J'"),
        (lambda run: run.update(run_name="a\nb"), r"run_name = 'a\nb'"),
        (lambda run: run["sites"][0]["test"]["dice"].update(WT=1.5), "sites.0.test.dice.WT = 1.5"),
        (lambda run: run["server"]["work"].update(seconds=1.7e308), "server.work.seconds = 1.7e+308"),
        (lambda run: run["server"]["work"].update(steps=-1), "server.work.steps = -1"),
        (lambda run: run["sites"][0].update(name="site\u202e-1"), "sites.0.name = "),
        (lambda run: run.update(run_name="\ud800"), "run_name"),
        (lambda run: run.update(run_name="x" * 201), "run_name"),
        (lambda run: run.update(version="9" * 10**6), "version"),
        (lambda run: run.update(seed=10**30), "seed = "),
        (lambda run: run.update(round=10**30), "round = "),
        (lambda run: run.update(seconds=float("nan")), "seconds = nan"),
        (lambda run: run.update(sites=[]), "sites"),
        (lambda run: run["sites"][1].update(name="site-1"), "two participants of one name"),
        (lambda run: run["sites"][1].update(name="server"), "two participants of one name"),
        (lambda run: run["sites"][0]["cases"].pop("train"), "site-1: cases does not say how many are for train"),
        (lambda run: run["sites"][0]["test_cases"][0]["hd95_mm"].pop("WT"), "are of different regions"),
        (lambda run: run["sites"][0]["test"].update(mdsc=0.9), "mdsc is not the mean of the regions' dice"),
        (lambda run: run["sites"][0]["test"].update(dice={}), "sites.0.test.dice"),
        (lambda run: run["settings"].update(task=["brats"]), "settings: task = a value of type list"),
        (lambda run: run["settings"]["data"].update(phantom={"a": {}}), "settings: phantom = a value of type dict"),
        (lambda run: run["settings"]["data"].update(split_seed="x"), "settings: split_seed = x"),
        (lambda run: run["settings"]["data"].update(train=float("inf")), "settings: train = inf"),
        (lambda run: run["settings"].update(nest(900)), "sections deep"),
        (lambda run: run["settings"].update({str(number): 1 for number in range(10**4)}), "at most 200 in a section"),
    ],
)
def test_damaged_results(tmp_path: Path, change, said: str) -> None:
    run = runs.run("fedmepd", 0, runs.scores(0))
    change(run)
    path = runs.write(tmp_path, run | {"method": "fedmepd", "seed": run["seed"]})
    refused([tmp_path], str(path), said, "; restore it, or leave that run out: name the others")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"\xef\xbb\xbf{}"])
@pytest.mark.parametrize("name", ["results.json", "history.json"])
def test_a_broken_file_among_runs_ends_with_what_to_do(name: str, content: bytes, tmp_path: Path) -> None:
    write(tmp_path, "fedmepd", 0)
    broken = write(tmp_path, "local", 0).with_name(name)
    broken.write_bytes(content)
    refused([tmp_path], f"{broken} ", "; restore it, or leave that run out: name the others")


def test_files_of_strangers_below_the_folder(tmp_path: Path) -> None:
    """A folder of the name is none of the files, nobody waits for a pipe, and a huge file is not read."""
    path = write(tmp_path, "fedmepd", 0)
    (tmp_path / "a" / "results.json").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / "results.json")
    assert find_all([tmp_path]) == [path]
    with open(path, "ab") as file:
        file.truncate(2**27 + 1)
    refused([path], str(path), "more than 128 MiB")


def test_settings_of_strangers_make_names_that_can_be_printed(tmp_path: Path) -> None:
    """Values that are cut may look alike; their runs do not become one method."""
    for number, end in enumerate(("x\x1b[2J", "y", "z")):
        settings = {"training": {"learning_rate": 0.001}}
        run = runs.run("fedmepd", 0, runs.scores(0), settings=settings)
        run["settings"]["note"] = "a" * 10**5 + end
        runs.write(tmp_path / str(number), run)
    names = list(gather([tmp_path]).methods)
    cut = f"fedmepd note={'a' * 57}..."
    assert names == [cut, f"{cut} (2)", f"{cut} (3)"]


def test_damaged_curves(tmp_path: Path) -> None:
    path = write(tmp_path, "fedmepd", 0).with_name("history.json")
    path.write_text(json.dumps({"server": {"validation": [{"round": "first"}]}}))
    refused([tmp_path], str(path), "server.validation.0.round", "Without that file its method")
    path.write_text("{")
    refused([tmp_path], re.escape(str(path)).replace("\\", ""))


def test_results_of_an_older_version(tmp_path: Path) -> None:
    """They say nothing of cases, work and machine."""
    run = runs.run("fedmepd", 0, runs.scores(0))
    for key in ("source", "trials", "hardware", "precision", "evaluation"):
        del run[key]
    for entry in (run["server"], *run["sites"]):
        for key in ("test_cases", "test_fingerprint", "work"):
            del entry[key]
    runs.write(tmp_path, run)
    found = gather([tmp_path]).methods["fedmepd"][0].run
    assert found.evaluation is None and found.trials == 1 and found.server.test_cases is None
