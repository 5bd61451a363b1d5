"""What a site lets a job ask of its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmepd.errors import Aborted, SettingsError
from fedmepd.job_settings import make_settings
from fedmepd.site_limits import HIGHEST, Limits
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.brats import BRATS
from fedmepd.training.memory_needs import memory_need


@pytest.mark.parametrize("preset", ["paper", "phantom"])
def test_a_hospital_that_sets_nothing_runs_every_preset(preset: str) -> None:
    Limits().check(settings := make_settings(preset))
    Limits().check_memory(memory_need(settings, BRATS.modalities))


@pytest.mark.parametrize(
    ("section", "key", "value", "limit"),
    [
        ("network", "width", 64, "width is 32"),
        ("training", "crop", 256, "crop is 128"),
        ("evaluation", "window", 512, "window is 160"),
        ("training", "batch", 64, "batch is 8"),
        ("training", "local_epochs", 100, "epochs is 10"),
        ("training", "fusion_epochs", 11, "epochs is 10"),
        ("training", "threads", 1024, "threads is 64"),
        ("training", "fusion_threads", 65, "threads is 64"),
        (None, "rounds", 100_000, "rounds is 2000"),
    ],
)
def test_a_job_that_asks_for_more_is_refused(section: str | None, key: str, value: int, limit: str) -> None:
    asked = {key: value} if section is None else {section: {key: value}}
    settings = make_settings("paper", asked)
    with pytest.raises(SettingsError) as error:
        Limits().check(settings)
    named = f"{key if section is None else f'{section}.{key}'} is {value} in the job, limits.{limit} at this site"
    # The server, too, is told which limit it is.
    assert str(error.value).startswith(named) and error.value.public == named
    HIGHEST.check(settings)


def test_a_job_that_asks_for_as_much_as_the_limit() -> None:
    Limits(crop=80).check(make_settings("paper", {"training": {"crop": 80}}))
    with pytest.raises(SettingsError, match="crop is 88 in the job, limits.crop is 80 at this site"):
        Limits(crop=80).check(make_settings("paper", {"training": {"crop": 88}}))


def test_rounds_that_no_job_has() -> None:
    Limits(rounds=5).check_round(5)
    with pytest.raises(SettingsError, match="round is 6 in the job, limits.rounds is 5"):
        Limits(rounds=5).check_round(6)


def test_a_full_site(tmp_path) -> None:
    for name, size in (("one", 3 * 2**20), ("two/below", 2 * 2**20)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "state_00001.pt").write_bytes(bytes(size))
    folders = [tmp_path / "one", tmp_path / "two"]
    Limits(disk_gib=5 / 1024).check_disk(folders)
    with pytest.raises(SettingsError, match="limits.disk_gib is 0.00390625 at this site, .* hold 0.00488 GiB") as error:
        Limits(disk_gib=4 / 1024).check_disk(folders)
    assert str(tmp_path) in str(error.value) and str(tmp_path) not in error.value.public


def test_a_full_cache_names_its_folder_and_what_to_do(tmp_path) -> None:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "case.npz").write_bytes(bytes(2**20))
    Limits(cache_gib=1 / 1024).check_cache(tmp_path / "prepared")
    with pytest.raises(SettingsError, match="limits.cache_gib is 0.000488281 at this site") as error:
        Limits(cache_gib=0.5 / 1024).check_cache(tmp_path / "prepared")
    assert f"remove {tmp_path}/prepared (a job prepares again what it needs), or raise the limit" in str(error.value)
    assert str(tmp_path) not in error.value.public


def test_a_job_that_may_need_too_much_memory() -> None:
    Limits(memory_gib=2).check_memory(2 * 2**30)
    told = "the job may need 2.5 GiB of memory, limits.memory_gib is 2 at this site"
    with pytest.raises(SettingsError) as error:
        Limits(memory_gib=2).check_memory(5 * 2**29)
    assert error.value.public == told and str(error.value).startswith(f"{told}: lower network.width")


def test_no_job_within_the_other_limits_takes_all_memory() -> None:
    """Width 32, and eight crops of 128: each by itself is within its limit."""
    asked = make_settings("paper", {"network": {"width": 32}, "training": {"crop": 128, "batch": 8}})
    Limits().check(asked)
    with pytest.raises(SettingsError, match="may need .* GiB of memory, limits.memory_gib is 32"):
        Limits().check_memory(memory_need(asked, BRATS.modalities))


class _Vanishing(type(Path())):
    """A folder whose only file is gone as soon as it has been found."""

    def rglob(self, pattern: str):
        for file in super().rglob(pattern):
            yield _Gone(file)


class _Gone(type(Path())):
    def is_file(self) -> bool:
        found = super().is_file()
        self.unlink(missing_ok=True)
        return found


def test_a_state_that_another_job_replaces_meanwhile(tmp_path) -> None:
    (tmp_path / "state_00001.pt").write_bytes(bytes(2**20))
    Limits(disk_gib=1).check_disk([_Vanishing(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_a_task_that_takes_too_long() -> None:
    times = iter([100.0, 109.0, 110.0, 110.5])
    abort = Limits(task_seconds=10).in_time(lambda: False, lambda: next(times))
    assert abort() is False and abort() is False
    with pytest.raises(SettingsError, match="longer than limits.task_seconds, 10 at this site"):
        abort()


def test_a_task_in_time_may_be_aborted() -> None:
    assert Limits().in_time(lambda: True)() is True
    assert issubclass(SettingsError, Exception) and not issubclass(SettingsError, Aborted)


def test_one_machine_has_no_limits_but_those_that_are_set() -> None:
    free = SiteSettings().for_one_machine()
    assert (free.limits, free.min_count, free.reproducible) == (HIGHEST, 1, "yes")
    chosen = SiteSettings(limits={"crop": 64}, min_count=5, reproducible="no").for_one_machine()
    assert (chosen.limits.crop, chosen.min_count, chosen.reproducible) == (64, 5, "no")


def test_windows_of_a_volume_are_counted_before_they_are_made() -> None:
    """A window of 16 that moves by 1 voxel took 31 s and 1.8 GiB before the first question whether to stop."""
    few, many = ({"evaluation": {"window": 16, "overlap": overlap}} for overlap in (0.5, 0.9))
    # Along 256 voxels: from 0 to 240 in steps of 8, or of 1.
    Limits(windows=31**3).check(make_settings("paper", few))
    Limits().check(make_settings("paper", few))
    with pytest.raises(SettingsError) as error:
        Limits().check(make_settings("paper", many))
    assert error.value.public == (
        "evaluation.window 16 with evaluation.overlap 0.9 cuts a volume of 256 x 256 x 256 voxels into 13997521 "
        "windows, limits.windows is 100000 at this site"
    )
    HIGHEST.check(make_settings("paper", many))
    # Of a small volume there are fewer: 3 * 1 * 2 of 32 x 16 x 20 in steps of 8.
    Limits(windows=6).check_windows(make_settings("paper", few).evaluation, (32, 16, 20))
    with pytest.raises(SettingsError, match="volume of 32 x 16 x 20 voxels into 6 windows, limits.windows is 5"):
        Limits(windows=5).check_windows(make_settings("paper", few).evaluation, (32, 16, 20))


@pytest.mark.parametrize("size", [(64, 48, 17), (20, 9, 33)])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
def test_windows_are_as_many_as_monai_makes(size, overlap) -> None:
    from monai.data.utils import dense_patch_slices

    sections = make_settings("paper", {"evaluation": {"window": 16, "overlap": overlap}}).evaluation
    window = [min(16, side) for side in size]
    made = dense_patch_slices(size, window, [max(1, int(side * (1 - overlap))) for side in window])
    assert sections.windows(size) == len(made)
