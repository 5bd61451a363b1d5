"""A plan: which methods are run with which settings and seeds, on which cases. A YAML file that a schema checks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from fedmepd import methods
from fedmepd.closest import one_of
from fedmepd.config import FUSION_SITE, Settings, merge
from fedmepd.data.federation_folder import look_into
from fedmepd.data.phantom import phantom_sites
from fedmepd.errors import FedMEPDError, SettingsError, cannot_read, explain
from fedmepd.job_settings import PRESETS, make_settings
from fedmepd.tasks.find import task_of
from fedmepd.tasks.task import Task

Overrides = dict[str, Any]

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
_Seed = Annotated[int, Field(ge=0, lt=2**31)]

# Settings that a plan decides itself, and with what.
_DECIDED = {
    "method": "methods",
    "seed": "seeds",
    "run_name": "the names of methods and variations",
    "trials": "tune",
    "training.threads": "threads",
    "training.fusion_threads": "threads",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("settings", check_fields=False)
    @classmethod
    def _not_decided_elsewhere(cls, value: Overrides) -> Overrides:
        return _own(value)


def _own(settings: Overrides) -> Overrides:
    for key, owner in _DECIDED.items():
        section, _, last = key.rpartition(".")
        inside = settings.get(section, {}) if section else settings
        if isinstance(inside, dict) and last in inside:
            raise ValueError(f"{key} is decided by {owner} of the plan: leave it out")
    return settings


class Entry(_Part):
    """A method with settings of its own. In the file it may be the method's name alone.

    Attributes:
        method: its name.
        name: of its runs; by default the method's.
        settings: that differ from the plan's.
        tune: further settings to try with ``--tune``, besides none.
    """

    method: str
    name: _Name = ""
    settings: Overrides = {}
    tune: list[Overrides] | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        value = {"method": value} if isinstance(value, str) else value
        return {"name": value.get("method"), **value} if isinstance(value, dict) else value

    @field_validator("tune")
    @classmethod
    def _tunes_what_is_open(cls, value: list[Overrides] | None) -> list[Overrides] | None:
        return value and [_own(settings) for settings in value]


class Tuning(_Part):
    """How configurations are chosen with ``--tune``.

    Attributes:
        seeds: of the trials; none of the plan's own.
        candidates: further settings to try, for every method that names none itself.
    """

    seeds: list[_Seed] = Field(min_length=1)
    candidates: list[Overrides] = []

    @field_validator("candidates")
    @classmethod
    def _tunes_what_is_open(cls, value: list[Overrides]) -> list[Overrides]:
        return [_own(settings) for settings in value]


class Plan(_Part):
    """What ``fedmepd compare run`` reads.

    Attributes:
        preset: that the settings start from.
        settings: of all runs, nested like :class:`fedmepd.config.Settings`.
        methods: to run; in the file, ``all`` stands for every method there is.
        variations: settings by name; every method is run with each of them. Without any, once.
        seeds: every method is run with each of them.
        sites: their number, or their names; by default all that have cases.
        data: folder with one sub-folder per site and one named ``fusion``; by default what the machine's settings say,
            else phantoms. Relative to the plan's file.
        engine: ``in_process``: a run is one process; ``simulator``: FLARE's simulator, a process per site.
        threads: CPU threads of a process.
        tune: how configurations are chosen, if that is asked for.
    """

    preset: Literal[tuple(PRESETS)] = "phantom"
    settings: Overrides = {}
    methods: list[Entry] = Field(min_length=1)
    variations: dict[_Name, Overrides] = {}
    seeds: list[_Seed] = Field(min_length=1)
    sites: Annotated[int, Field(ge=1)] | Annotated[list[str], Field(min_length=1)] | None = None
    data: Path | None = None
    engine: Literal["in_process", "simulator"] = "in_process"
    threads: int = Field(1, ge=1)
    tune: Tuning | None = None
    # By task, what has been found in the data folder: to look takes long, and all runs are to have the same sites.
    _found: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    def sites_there(self, task: Task) -> tuple[str, ...]:
        """Returns the sites of the data folder, as they were when it was first asked.

        Args:
            task: that the cases are of.

        Raises:
            DataError: it holds none, or images that belong to none.
        """
        if task.name not in self._found:
            found = look_into(task, self.data)
            found.require_sites(fusion=False)
            self._found[task.name] = tuple(sorted(found.sites))
        return self._found[task.name]

    @field_validator("variations", mode="before")
    @classmethod
    def _one_may_change_nothing(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        # In YAML a number is no text, and a name with nothing behind it is null.
        return {str(name): {} if settings is None else settings for name, settings in value.items()}

    @field_validator("methods", mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        return methods.names() if value == "all" else value

    @field_validator("variations")
    @classmethod
    def _vary_what_is_open(cls, value: dict[str, Overrides]) -> dict[str, Overrides]:
        return {name: _own(settings) for name, settings in value.items()}

    @model_validator(mode="after")
    def _runs_are_different(self) -> Plan:
        for what, values in (("methods", [choice.name for choice in self.choices()]), ("seeds", self.seeds)):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                hint = ": give each a name of its own" if what == "methods" else ""
                raise ValueError(f"{what} has {twice[0]} twice{hint}")
        reported = set(self.seeds) & set(self.tune.seeds if self.tune else [])
        if reported:
            raise ValueError(
                f"tune.seeds has {min(reported)}, which seeds has too: choose on seeds that are not reported"
            )
        return self

    def choices(self) -> Iterator[Choice]:
        """Yields every method with every variation."""
        for entry in self.methods:
            for name, settings in (self.variations or {"": {}}).items():
                title = f"{entry.name}-{name}" if name else entry.name
                candidates = entry.tune if entry.tune is not None else self.tune.candidates if self.tune else []
                own = merge(merge(self.settings, entry.settings), settings)
                yield Choice(title, entry.method, own, tuple(candidates))


@dataclass(frozen=True)
class Choice:
    """A method with settings, to be run with every seed.

    Attributes:
        name: of its runs.
        method: the method's name.
        settings: that differ from the preset.
        candidates: further settings that may be tried.
    """

    name: str
    method: str
    settings: Overrides
    candidates: tuple[Overrides, ...] = ()


@dataclass(frozen=True)
class PlannedRun:
    """One run.

    Attributes:
        name: of its folder.
        settings: of the job.
        sites: the sites' names.
        data: folder of the cases; None: phantoms.
        engine: see :class:`Plan`.
    """

    name: str
    settings: Settings
    sites: tuple[str, ...]
    data: Path | None
    engine: str

    def cohort(self) -> tuple:
        """Returns what is the same for all runs that read the same prepared cases."""
        phantoms = (self.settings.data.phantom, self.settings.seed) if self.data is None else None
        return phantoms, self.data, self.settings.task, self.settings.data.clip_percent, self.sites


def read_plan(path: Path, data: Path | None) -> Plan:
    """Reads a plan.

    Args:
        path: the file.
        data: the machine's data folder, for a plan that names none.

    Raises:
        SettingsError: it cannot be read, a key is unknown, or a value is out of bounds; the message names it.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        what = "a plan, such as those in benchmarks/plans"
        raise SettingsError(cannot_read(path, error, what, "YAML")) from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path} is no plan: expected keys such as methods and seeds")
    try:
        plan = Plan.model_validate(content)
    except ValidationError as error:
        raise SettingsError(explain(error, str(path), Plan)) from error
    folder = data if plan.data is None else Path(path).absolute().parent / plan.data.expanduser()
    if folder is not None and not folder.is_dir():
        origin = "FEDMEPD_DATA" if plan.data is None else f"{path}: data"
        raise SettingsError(f"{origin} = {folder}: expected a folder with one sub-folder per site")
    return plan.model_copy(update={"data": folder})


def runs_of(
    plan: Plan, choice: Choice, seeds: list[int], more: Overrides | None = None, trials: int = 1
) -> list[PlannedRun]:
    """Returns the runs of a choice, one per seed.

    Args:
        plan: that it belongs to.
        choice: method and settings.
        seeds: of the runs.
        more: settings that override the choice's.
        trials: how many configurations were tried to find these settings.

    Raises:
        FedMEPDError: a method, a setting or a site is unknown, a value is out of bounds, or the method is for phantoms
            alone.
    """
    sites = _sites(plan, task_of(choice.settings))
    if plan.data is not None:
        methods.find(choice.method).require_source(f"data = {plan.data}", "folder")
    found = []
    for seed in seeds:
        name = f"{choice.name}-seed-{seed}"
        decided: Overrides = {
            "method": choice.method,
            "seed": seed,
            "run_name": name,
            "trials": trials,
            "training": {"threads": plan.threads, "fusion_threads": plan.threads},
        }
        if plan.data is not None:
            # Otherwise every seed would split the patients anew, and test on others.
            decided["data"] = {"split_seed": plan.seeds[0], "phantom": False}
        own = merge(choice.settings, more or {})
        settings = make_settings(plan.preset, merge(decided, own))
        if (asked := settings.fusion.site) and asked not in sites:
            raise SettingsError(f"settings: fusion.site = {asked!r}: {one_of(asked, sites)}")
        found.append(PlannedRun(name, settings, sites, plan.data, plan.engine))
    return found


def runs_of_all(choices: Iterable[Choice], runs: Callable[[Choice], list[PlannedRun]]) -> list[PlannedRun]:
    """Returns the runs of several choices.

    Args:
        choices: methods with settings.
        runs: of one choice, see :func:`runs_of`.

    Raises:
        SettingsError: some are refused; the message names all of them, and each reason once.
    """
    found: list[PlannedRun] = []
    refused: dict[str, list[str]] = defaultdict(list)
    for choice in choices:
        try:
            found += runs(choice)
        except FedMEPDError as error:
            refused[str(error)].append(choice.name)
    if refused:
        raise SettingsError("; ".join(f"{', '.join(names)}: {reason}" for reason, names in refused.items()))
    return found


def _sites(plan: Plan, task: Task) -> tuple[str, ...]:
    if plan.data is None:
        there = tuple(name for name in phantom_sites() if name != FUSION_SITE)
    elif isinstance(plan.sites, list):
        # What else lies there does not matter.
        there = tuple(sorted(child.name for child in plan.data.iterdir() if child.is_dir()))
    else:
        there = plan.sites_there(task)
    if plan.sites is None:
        return there
    if isinstance(plan.sites, int):
        if plan.sites > len(there):
            raise SettingsError(f"sites = {plan.sites}: there are cases of {len(there)}: {', '.join(there)}")
        return there[: plan.sites]
    unknown = [name for name in plan.sites if name not in there]
    if unknown:
        raise SettingsError(f"sites: {unknown[0]} has no cases: {one_of(unknown[0], there)}")
    return tuple(plan.sites)
