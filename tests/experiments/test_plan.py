from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fedmepd import methods
from fedmepd.errors import FedMEPDError
from fedmepd.experiments.plan import Choice, Plan, read_plan, runs_of, runs_of_all
from fedmepd.experiments.tuning import trials_of

ROOT = Path(__file__).parents[2]
SMALL = {"methods": ["local", "fedavg"], "seeds": [0, 1]}


def write(folder: Path, content: object) -> Path:
    path = folder / "plan.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def runs(plan: Plan) -> list:
    return runs_of_all(plan.choices(), lambda choice: runs_of(plan, choice, plan.seeds))


def test_methods_times_variations_times_seeds(tmp_path) -> None:
    content = {
        "settings": {"rounds": 7, "training": {"batch": 3}},
        "methods": ["local", {"method": "fedavg", "name": "shared", "settings": {"network": {"shared_encoder": True}}}],
        "variations": {"slow": {"training": {"learning_rate": 0.5}}, "as-is": None},
        "seeds": [3, 1],
        "sites": 2,
    }
    found = runs(read_plan(write(tmp_path, content), None))
    names = ["local-slow", "local-as-is", "shared-slow", "shared-as-is"]
    assert [run.name for run in found] == [f"{name}-seed-{seed}" for name in names for seed in (3, 1)]
    for run in found:
        settings = run.settings
        assert (settings.rounds, settings.training.batch, settings.run_name) == (7, 3, run.name)
        assert settings.method == ("local" if run.name.startswith("local") else "fedavg")
        assert settings.network.shared_encoder == run.name.startswith("shared")
        assert settings.training.learning_rate == (0.5 if "slow" in run.name else 4e-3)
        assert (settings.training.threads, settings.training.fusion_threads) == (1, 1)
        assert run.sites == ("site-1", "site-2") and run.data is None
    assert [run.settings.seed for run in found[:2]] == [3, 1]
    # Phantoms are of the seed; the cases of two methods with one seed are the same.
    assert found[0].cohort() == found[2].cohort() != found[1].cohort()


def test_patients_are_split_once_for_all_seeds(tmp_path) -> None:
    for name in ("clinic", "fusion", ".hidden"):
        (tmp_path / "cases" / name / "a").mkdir(parents=True)
        (tmp_path / "cases" / name / "a" / "t1.nii.gz").touch()
    found = runs(read_plan(write(tmp_path, SMALL | {"data": "cases", "seeds": [4, 5]}), None))
    assert {run.settings.split_seed() for run in found} == {4} and {run.settings.seed for run in found} == {4, 5}
    assert {(run.data, run.sites) for run in found} == {(tmp_path / "cases", ("clinic",))}
    assert len({run.cohort() for run in found}) == 1
    # The folder is looked through once, and not once for each method: what comes there later changes no run.
    plan = read_plan(tmp_path / "plan.yaml", None)
    before = runs(plan)
    (tmp_path / "cases" / "later" / "b").mkdir(parents=True)
    (tmp_path / "cases" / "later" / "b" / "t1.nii.gz").touch()
    assert runs(plan) == before
    (tmp_path / "cases" / "later" / "b" / "t1.nii.gz").unlink()
    own = SMALL | {"data": "cases", "settings": {"data": {"split_seed": 9}}}
    assert {run.settings.split_seed() for run in runs(read_plan(write(tmp_path, own), None))} == {9}
    # The machine's folder, where the plan names none.
    assert read_plan(write(tmp_path, SMALL), tmp_path / "cases").data == tmp_path / "cases"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("methods: [", "cannot be read as YAML"),
        ("- local", "is no plan"),
        ("", "is no plan"),
        ({"seeds": [0]}, "methods is missing"),
        (SMALL | {"methods": []}, "methods"),
        (SMALL | {"method": "local"}, "unknown key method: expected one of preset, settings, methods"),
        (SMALL | {"methods": ["fedbest"]}, "fedbest: settings: method = 'fedbest': expected one of fedmepd"),
        (SMALL | {"methods": [{"name": "own"}]}, "methods.0.method is missing"),
        (SMALL | {"methods": [{"method": "local", "name": "../up"}]}, "methods.0.name = '../up'"),
        (SMALL | {"methods": ["local", "local"]}, "methods has local twice: give each a name"),
        (
            SMALL | {"methods": ["local", {"method": "fedavg", "name": "local-a"}], "variations": {"a-b": {}, "b": {}}},
            "methods has local-a-b twice: give each a name",
        ),
        (SMALL | {"seeds": [2, 2]}, "seeds has 2 twice"),
        (SMALL | {"seeds": [-1]}, "seeds.0 = -1"),
        (SMALL | {"seeds": []}, "seeds"),
        (SMALL | {"preset": "brain"}, "preset = 'brain'"),
        (SMALL | {"engine": "cloud"}, "engine = 'cloud'"),
        (SMALL | {"threads": 0}, "threads = 0"),
        (SMALL | {"settings": {"roundz": 3}}, "local, fedavg: settings: unknown key roundz"),
        (SMALL | {"settings": {"rounds": 0}}, "local, fedavg: settings: rounds = 0"),
        (SMALL | {"settings": {"calibration": {"enabled": False}}}, "is a setting of fedmepd"),
        (SMALL | {"settings": {"seed": 3}}, "seed is decided by seeds of the plan"),
        (SMALL | {"settings": {"training": {"threads": 3}}}, "training.threads is decided by threads of the plan"),
        (SMALL | {"variations": {"a": {"run_name": "x"}}}, "run_name is decided by the names of methods"),
        (SMALL | {"variations": {"a b": {}}}, "variations.a b"),
        (SMALL | {"tune": {"seeds": [1], "candidates": [{}]}}, "tune.seeds has 1, which seeds has too"),
        (SMALL | {"tune": {"seeds": [7], "candidates": [{"trials": 3}]}}, "trials is decided by tune"),
        (SMALL | {"sites": 9}, "sites = 9: there are cases of 8: site-1"),
        (SMALL | {"sites": ["site-1", "clinic"]}, "sites: clinic has no cases: expected one of site-1"),
        (SMALL | {"settings": {"fusion": {"site": "clinic"}}}, "fusion.site = 'clinic': expected one of site-1"),
        (SMALL | {"data": "nowhere"}, "expected a folder with one sub-folder per site"),
    ],
)
def test_refused_before_anything_starts(content: object, expected: str, tmp_path) -> None:
    with pytest.raises(FedMEPDError) as caught:
        runs(read_plan(write(tmp_path, content), None))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_data_folder_of_the_machine_is_not_blamed_on_the_plan(tmp_path) -> None:
    file = write(tmp_path, SMALL)
    with pytest.raises(FedMEPDError, match="FEDMEPD_DATA = .*nowhere: expected a folder") as caught:
        read_plan(file, tmp_path / "nowhere")
    assert str(file) not in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "plans").glob("*.yaml")), ids=lambda path: path.stem)
def test_plans_of_the_repository(path: Path) -> None:
    """Every setting is known to its method, and the methods can be tuned where the plan says how."""
    plan = read_plan(path, None)
    found = runs(plan)
    assert len({run.name for run in found}) == len(found) >= 3 * len(list(plan.choices()))
    if plan.tune:
        assert {len(choice.candidates) for choice in plan.choices()} == {3}
        assert len(trials_of(plan)) == 4 * len(list(plan.choices()))


def test_all_methods(tmp_path) -> None:
    plan = read_plan(write(tmp_path, "methods: all\nseeds: [0]\nvariations: {10: }"), None)
    assert [choice.method for choice in plan.choices()] == methods.names()
    assert {choice.name for choice in plan.choices()} == {f"{name}-10" for name in methods.names()}


def test_everything_that_is_refused_is_named_and_each_reason_once(tmp_path) -> None:
    content = {"methods": ["fedmepd", "lokal", "local"], "seeds": [0], "settings": {"data": {"crop": 24}}}
    with pytest.raises(FedMEPDError) as caught:
        runs(read_plan(write(tmp_path, content), None))
    first, second = str(caught.value).split("; lokal: ")
    assert first == "fedmepd, local: settings: unknown key data.crop; did you mean training.crop?"
    assert second.endswith("did you mean local?")


def test_a_method_for_phantoms_alone_is_refused_with_patients(tmp_path) -> None:
    (tmp_path / "cases" / "clinic" / "a").mkdir(parents=True)
    (tmp_path / "cases" / "clinic" / "a" / "t1.nii.gz").touch()
    content = {"methods": ["local", "creamfl"], "seeds": [0], "data": "cases"}
    with pytest.raises(FedMEPDError, match="^creamfl: data = .*cases: CreamFL is for phantoms alone"):
        runs(read_plan(write(tmp_path, content), None))


def test_no_file(tmp_path) -> None:
    with pytest.raises(FedMEPDError, match="plan.yaml does not exist: expected a plan"):
        read_plan(tmp_path / "plan.yaml", None)


def test_empty_data_folder(tmp_path) -> None:
    (tmp_path / "cases" / "fusion").mkdir(parents=True)
    with pytest.raises(
        FedMEPDError, match="cases holds no sites, but fusion \\(it is empty\\): expected a folder with"
    ):
        runs(read_plan(write(tmp_path, SMALL | {"data": "cases"}), None))


def test_a_case_beside_the_sites(tmp_path) -> None:
    """It would be taken for a site of one case; a plan that names its sites does not look at it."""
    for place in ("clinic/a", "other/b", "case-99"):
        (tmp_path / "cases" / place).mkdir(parents=True)
        (tmp_path / "cases" / place / "t1.nii.gz").touch()
    with pytest.raises(
        FedMEPDError, match="holds 2 sites \\(clinic, other\\), and images that belong to none: case-99"
    ):
        runs(read_plan(write(tmp_path, SMALL | {"data": "cases"}), None))
    found = runs(read_plan(write(tmp_path, SMALL | {"data": "cases", "sites": ["other"]}), None))
    assert {run.sites for run in found} == {("other",)}


def test_candidates_of_a_method_come_before_the_common_ones() -> None:
    own, common = [{"rounds": 1}], [{"rounds": 2}, {"rounds": 3}]
    plan = Plan.model_validate(
        {
            "methods": ["local", {"method": "fedavg", "tune": own}],
            "seeds": [0],
            "tune": {"seeds": [7], "candidates": common},
        }
    )
    assert list(plan.choices()) == [
        Choice("local", "local", {}, tuple(common)),
        Choice("fedavg", "fedavg", {}, tuple(own)),
    ]
