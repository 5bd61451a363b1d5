"""What a site lets a job ask of its machine. A job's settings come from the server; these limits never do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from fedmepd.config import LONGEST_WAIT, MOST_ROUNDS, EvaluationSettings, Settings
from fedmepd.errors import SettingsError

_GIB = 2**30

# As many voxels of 1 mm as any head needs: before training, no site knows how large the prepared cases will be.
_WHOLE_HEAD = (256, 256, 256)

# The limit on each setting of a job, by the setting's section and key.
_LIMITED = {
    ("network", "width"): "width",
    ("training", "crop"): "crop",
    ("evaluation", "window"): "window",
    ("training", "batch"): "batch",
    ("training", "local_epochs"): "epochs",
    ("training", "fusion_epochs"): "epochs",
    ("training", "threads"): "threads",
    ("training", "fusion_threads"): "threads",
}


class Limits(BaseModel):
    """The most that a job may ask of a site. The site refuses a job that asks for more, and names the limit.

    >>> from fedmepd.config import Settings
    >>> from fedmepd.job_settings import make_settings
    >>> Limits().check(make_settings("paper"))
    >>> Limits(crop=64).check(make_settings("paper"))
    Traceback (most recent call last):
    ...
    fedmepd.errors.SettingsError: training.crop is 80 in the job, limits.crop is 64 at this site: lower the one, or ...
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    width: int = Field(32, ge=4, le=64, description="largest `network.width`")
    crop: int = Field(
        128, ge=16, le=256, description="largest `training.crop` in voxels", json_schema_extra={"unit": "voxels"}
    )
    window: int = Field(
        160, ge=16, le=512, description="largest `evaluation.window` in voxels", json_schema_extra={"unit": "voxels"}
    )
    windows: int = Field(
        100_000,
        ge=1,
        le=10**9,
        description="most windows that `evaluation.window` and `overlap` cut a volume into: of 256 voxels a side "
        "before training, and of every case before it is segmented",
    )
    batch: int = Field(8, ge=1, le=64, description="largest `training.batch`")
    epochs: int = Field(10, ge=1, le=100, description="largest `training.local_epochs` and `fusion_epochs`")
    rounds: int = Field(2000, ge=1, le=MOST_ROUNDS, description="most rounds of a job")
    repeats: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="how often the server may ask for a round again in a run, as it does after a restart; the same for "
        "each other kind of task, such as tests",
    )
    threads: int = Field(
        64, ge=1, le=1024, description="most CPU threads; also where the job leaves the number to PyTorch"
    )
    disk_gib: float = Field(
        100,
        gt=0,
        le=1e6,
        description="most GiB that this package has written in the kit: states and models of all runs, and the list of "
        "what has left; a full site refuses jobs",
        json_schema_extra={"unit": "GiB"},
    )
    memory_gib: float = Field(
        32,
        gt=0,
        le=1e6,
        description="most GiB of memory that training and segmentation may need, on a GPU or without one: an upper "
        "bound, estimated from width, crop, batch, window and the site's modalities, as `fedmepd doctor` shows it",
        json_schema_extra={"unit": "GiB"},
    )
    cache_gib: float = Field(
        500,
        gt=0,
        le=1e6,
        description="most GiB of prepared cases in the cache; each value of `data.clip_percent` in a job has all of "
        "its cases prepared anew. A site with a full cache refuses jobs",
        json_schema_extra={"unit": "GiB"},
    )
    task_seconds: float = Field(
        4 * 3600,
        gt=0,
        le=LONGEST_WAIT,
        description="most seconds for a task that trains, scores or tests, such as a round. The inspection of the "
        "site's own cases when a job begins is not limited: it takes the longer the more cases there are, and a later "
        "job finds its results in the cache",
        json_schema_extra={"unit": "seconds"},
    )

    def describe(self) -> str:
        """Returns all limits in a line."""
        return ", ".join(f"{name} {value:g}" for name, value in self.model_dump().items())

    def check(self, settings: Settings) -> None:
        """Refuses a job that asks for more.

        Raises:
            SettingsError: it names setting and limit.
        """
        asked = {f"{section}.{key}": getattr(getattr(settings, section), key) for section, key in _LIMITED}
        limits = {f"{section}.{key}": name for (section, key), name in _LIMITED.items()}
        self._compare({**asked, "rounds": settings.rounds}, {**limits, "rounds": "rounds"})
        self.check_windows(settings.evaluation, _WHOLE_HEAD)

    def check_windows(self, evaluation: EvaluationSettings, size: Sequence[int]) -> None:
        """Refuses to cut a volume into too many windows: they are laid out in memory before the first.

        Args:
            evaluation: of the job.
            size: of the volume in voxels.

        Raises:
            SettingsError: it names setting and limit.
        """
        windows = evaluation.windows(size)
        if windows > self.windows:
            told = (
                f"evaluation.window {evaluation.window} with evaluation.overlap {evaluation.overlap:g} cuts a volume "
                f"of {' x '.join(map(str, size))} voxels into {windows} windows, limits.windows is {self.windows} at "
                "this site"
            )
            raise SettingsError(
                f"{told}: raise the window or lower the overlap in the job, or raise the limit in the site's "
                "fedmepd.json",
                public=told,
            )

    def check_round(self, round_number: int) -> None:
        """Refuses a round that no job within the limits has.

        Raises:
            SettingsError: it names round and limit.
        """
        self._compare({"the round": round_number}, {"the round": "rounds"})

    def check_repeats(self, kind: str, repeats: int) -> None:
        """Refuses a task that the server has asked for too often.

        Args:
            kind: of the task.
            repeats: how often, this time included, it was for a round that had been asked for before.

        Raises:
            SettingsError: it names both, and the limit.
        """
        if repeats > self.repeats:
            told = (
                f"the server has asked for {kind} {repeats} times more than the run has rounds of it, limits.repeats "
                f"is {self.repeats} at this site"
            )
            raise SettingsError(f"{told}: ask its operator why, or raise the limit in the site's fedmepd.json", told)

    def check_disk(self, folders: list[Path], books: Sequence[Path] = ()) -> None:
        """Refuses a job where the runs so far have left too much.

        Args:
            folders: with the runs' states and models.
            books: files and folders with what is noted of all runs, which count too.

        Raises:
            SettingsError: it names what they hold and the limit.
        """
        used = _gib([*folders, *books])
        if used > self.disk_gib:
            told = f"limits.disk_gib is {self.disk_gib:g} at this site, and its runs hold {used:.3g} GiB"
            where = f" ({', '.join(map(str, folders))})" if folders else ""
            raise SettingsError(
                f"{told}: move finished ones away{where}, or raise the limit in the site's fedmepd.json",
                public=told,
            )

    def check_memory(self, need: int) -> None:
        """Refuses a job that may need too much memory.

        Args:
            need: of the job at this site, in bytes.

        Raises:
            SettingsError: it names need and limit.
        """
        if need > self.memory_gib * _GIB:
            told = (
                f"the job may need {need / _GIB:.1f} GiB of memory, limits.memory_gib is {self.memory_gib:g} at this "
                "site"
            )
            raise SettingsError(
                f"{told}: lower network.width, training.crop, training.batch or evaluation.window in the job, or raise "
                "the limit in the site's fedmepd.json",
                public=told,
            )

    def check_cache(self, folder: Path) -> None:
        """Refuses a job where the jobs so far have had too much prepared: nobody but the site removes it.

        Args:
            folder: with the prepared cases; need not exist.

        Raises:
            SettingsError: it names what they hold and the limit.
        """
        used = _gib([folder])
        if used > self.cache_gib:
            told = f"limits.cache_gib is {self.cache_gib:g} at this site, and its prepared cases hold {used:.3g} GiB"
            raise SettingsError(
                f"{told}: remove {folder} (a job prepares again what it needs), or raise the limit in the site's "
                "fedmepd.json",
                public=told,
            )

    def _compare(self, asked: dict[str, float], limits: dict[str, str]) -> None:
        for setting, value in asked.items():
            limit = getattr(self, limits[setting])
            if value > limit:
                told = f"{setting} is {value} in the job, limits.{limits[setting]} is {limit:g} at this site"
                raise SettingsError(
                    f"{told}: lower the one, or raise the other in the site's fedmepd.json", public=told
                )

    def in_time(self, abort: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
        """Returns an ``abort`` for one task that begins with this call.

        Raises:
            SettingsError: from what is returned, when the task has taken too long; it names the limit.
        """
        end = clock() + self.task_seconds

        def asked() -> bool:
            if clock() > end:
                told = f"it took longer than limits.task_seconds, {self.task_seconds:g} at this site"
                raise SettingsError(told, public=told)
            return abort()

        return asked


def _gib(places: list[Path]) -> float:
    return sum(_size(file) for place in places for file in (place, *place.rglob("*"))) / _GIB


def _size(path: Path) -> int:
    # Another job of the site may be replacing its states.
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


# No limits but those of the settings themselves.
HIGHEST = Limits(
    **{
        name: next(bound.le for bound in field.metadata if hasattr(bound, "le"))
        for name, field in Limits.model_fields.items()
    }
)
