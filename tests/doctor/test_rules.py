"""What doctor says of a site's own decisions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmepd.doctor.federation import Expected
from fedmepd.doctor.kit import Kit
from fedmepd.doctor.rules import check_kit_files, check_rules
from fedmepd.doctor.site_data import Looked
from fedmepd.flare.kits import KitSettings
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.brats import BRATS

MANY = {"training": 30, "validation": 5, "test": 15}


def rules(machine: SiteSettings, parts: dict[str, int] = MANY, **job) -> dict[str, tuple[str, str]]:
    expected = Expected(make_settings("paper", job), source="job x")
    return {
        check.kind: (check.status, check.text)
        for check in check_rules(expected, machine, Looked(BRATS.modalities, parts=parts))
    }


def test_the_published_settings_at_a_site_that_sets_nothing() -> None:
    found = rules(SiteSettings())
    assert found["the job is within them"][0] == "ok" and "crop 128" in found["the job is within them"][1]
    assert found["decided"] == ("ok", "no mean over fewer than 3 patients; the site allows all kinds of values")
    assert len(found) == 2


def test_a_job_beyond_the_limits() -> None:
    status, text = rules(SiteSettings(limits={"crop": 64}))["the job asks for more"]
    assert (status, text) == ("error", "training.crop is 80 in the job, limits.crop is 64 at this site")


def test_a_job_that_may_need_more_memory_than_the_site_has_for_it() -> None:
    status, text = rules(SiteSettings(limits={"memory_gib": 1}))["the job asks for more"]
    assert status == "error" and text.endswith("GiB of memory, limits.memory_gib is 1 at this site")


def test_a_site_with_few_cases_learns_what_will_be_missing() -> None:
    found = rules(SiteSettings(min_count=5, allow={"durations": False}), MANY | {"validation": 2, "test": 0})
    assert found["means that stay, over too few patients"] == ("note", "validation 2; min_count is 5")
    assert found["decided"][1].endswith("; the site allows all kinds of values but durations")


@pytest.mark.parametrize(
    ("count", "told"), [(1, "min_count is 1: a score or loss may be a single patient's"), (2, "min_count is 2")]
)
def test_means_over_next_to_nobody(count: int, told: str, tmp_path: Path) -> None:
    kind = "means over very few patients leave"
    assert rules(SiteSettings(min_count=count, data=tmp_path))[kind] == ("warning", told)
    # Phantoms are nobody's.
    assert kind not in rules(SiteSettings(min_count=count)) and kind not in rules(SiteSettings(data=tmp_path))


def test_a_kit_that_an_older_version_has_set_up(kit_folder) -> None:
    """With the whole package on the list, a job could have any function in it called."""
    resources = kit_folder / "local/resources.json"
    resources.write_text(json.dumps({"class_allow_list": ["nvflare.app_common.np.np_trainer.NPTrainer", "fedmepd."]}))
    [check] = check_kit_files(Kit.read(kit_folder))
    assert (check.status, check.text) == ("error", "local/resources.json allows fedmepd.")
    KitSettings(kit_folder).set_up()
    assert not list(check_kit_files(Kit.read(kit_folder)))


@pytest.mark.parametrize(
    "name",
    [
        "fedmepd.experiments",
        "fedmepd.experiments.pool._start",
        "nvflare.",
        "nvflare.app_common.widgets",
        "os",
        "subprocess.Popen",
    ],
)
def test_a_site_that_allows_other_packages_by_hand(name: str, kit_folder) -> None:
    """FLARE takes every name for that of a package, too: what begins with it is allowed."""
    resources = kit_folder / "local/resources.json"
    resources.write_text(json.dumps({"class_allow_list": ["hospital.own.Trainer", name]}))
    [check] = check_kit_files(Kit.read(kit_folder))
    assert (check.status, check.text) == ("error", f"local/resources.json allows {name}")
    KitSettings(kit_folder).set_up()
    assert not list(check_kit_files(Kit.read(kit_folder)))
    assert "hospital.own.Trainer" in json.loads(resources.read_text())["class_allow_list"]


def test_a_kit_as_it_was_provisioned(kit_folder) -> None:
    assert not list(check_kit_files(Kit.read(kit_folder)))
    for file in (kit_folder / "local").glob("resources.json*"):
        file.unlink()
    assert not list(check_kit_files(Kit.read(kit_folder)))


def test_a_file_of_the_kit_that_flare_cannot_use(kit_folder) -> None:
    (kit_folder / "local/resources.json").write_text(json.dumps({"class_allow_list": ["hospital.own.Trainer", 5]}))
    [check] = check_kit_files(Kit.read(kit_folder))
    assert (check.status, check.kind) == ("error", "file that cannot be used")
    assert "local/resources.json: class_allow_list.1 = 5: expected a text" in check.text


def test_what_others_wrote_into_a_kit_does_not_steer_the_terminal(kit_folder) -> None:
    file = kit_folder / "local/resources.json"
    content = json.loads((kit_folder / "local/resources.json.default").read_text())
    file.write_text(json.dumps(content | {"class_allow_list": ["fedmepd.a\x1b[2Jb"]}))
    [found] = [check for check in check_kit_files(Kit.read(kit_folder)) if "do too much" in check.kind + check.text]
    assert r"fedmepd.a\x1b[2Jb" in found.lines()[0]
