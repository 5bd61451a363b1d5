"""A run as a comparison reads it: the part of results.json and history.json that counts, checked by a schema."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from fedmepd.config import cohort_name
from fedmepd.errors import FedMEPDError, explain, plain_text
from fedmepd.evaluation.result_files import require_names
from fedmepd.evaluation.results import FILE_NAME, HISTORY, ROUNDING
from fedmepd.storage import read_json, refuse_huge
from fedmepd.text_table import counted

_HINT = "; restore it, or leave that run out: name the others"

# Sections of settings in one another, and settings of a section.
_MOST_NESTED, _MOST_SETTINGS = 4, 200
# The settings that the comparison itself looks at.
_SETTINGS = {"task": str, "phantom": bool | str, "split_seed": int | None, "clip_percent": int | float}

# Names go to a terminal and onto pages: without control characters, also those that turn the direction of writing.
_Name = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]*$")]
_Share = Annotated[float, Field(ge=0, le=1)]
_Millimetres = Annotated[float, Field(ge=0, le=1e6)]
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Amount = Annotated[float, Field(ge=0, le=2**53)]


class _Part(BaseModel):
    """What is not compared is not read."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class CaseScore(_Part):
    """The scores of one test case by region, see :class:`fedmepd.evaluation.metrics.CaseScores`.

    A region that ``empty`` does not name is empty in neither prediction nor label.
    """

    dice: dict[_Name, _Share]
    hd95_mm: dict[_Name, _Millimetres]
    empty: dict[_Name, Literal["both", "label", "prediction"] | None] = {}

    @model_validator(mode="after")
    def _of_the_same_regions(self) -> CaseScore:
        if self.dice.keys() != self.hd95_mm.keys():
            raise ValueError("dice and hd95_mm of a case are of different regions: expected both of every region")
        return self


class Scores(_Part):
    """Means over a site's test cases."""

    dice: Annotated[dict[_Name, _Share], Field(min_length=1)]
    mdsc: _Share
    hd95_mm: dict[_Name, _Millimetres] = {}

    @model_validator(mode="after")
    def _mean_of_the_regions(self) -> Scores:
        if not abs(fmean(self.dice.values()) - self.mdsc) < ROUNDING:
            raise ValueError("mdsc is not the mean of the regions' dice: changed by hand?")
        return self


class Work(_Part):
    """What a run has cost one participant."""

    steps: _Count
    passes: _Amount
    seconds: _Amount
    bytes_up: _Count
    bytes_down: _Count
    peak_mib: _Amount | None = None
    networks: _Count = 1


class Entry(_Part):
    """One site, or the fusion site."""

    name: _Name
    modalities: tuple[_Name, ...]
    cases: dict[_Name, _Count]
    test: Scores | None = None
    test_cases: tuple[CaseScore, ...] | None = None
    test_fingerprint: _Name | None = None
    work: Work | None = None

    @model_validator(mode="after")
    def _cases_are_counted(self) -> Entry:
        if missing := [part for part in ("train", "validation", "test") if part not in self.cases]:
            raise ValueError(f"{self.name}: cases does not say how many are for {' and '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _cases_make_the_means(self) -> Entry:
        if self.test_cases is None:
            return self
        if self.test is None or len(self.test_cases) != self.cases["test"]:
            raise ValueError(
                f"{self.name} has scores of {counted(len(self.test_cases), 'case')} and "
                f"{counted(self.cases['test'], 'test case')}"
            )
        if self.test_fingerprint is None:
            raise ValueError(f"{self.name} has scores of cases and no test_fingerprint that says which cases these are")
        for region, mean in self.test.dice.items():
            # A case whose label does not tell the region has no score of it.
            values = [case.dice[region] for case in self.test_cases if region in case.dice]
            if not values or not abs(fmean(values) - mean) < ROUNDING:
                raise ValueError(
                    f"{self.name}: the mean Dice of {region} is not the mean of its cases: changed by hand?"
                )
        return self


class Hardware(_Part):
    """The machine of the server."""

    cpu: _Name
    threads: _Count
    device: _Name


class Run(_Part):
    """A run. What older versions of fedmepd do not write is None or empty."""

    method: _Name
    run_name: _Name = ""
    seed: _Count
    trials: _Count = 1
    rounds: _Count
    round: _Count
    status: _Name
    seconds: _Amount
    source: Literal["phantom", "folder"] | None = None
    server: Entry
    sites: Annotated[tuple[Entry, ...], Field(min_length=1)]
    settings: dict[str, Any]
    hardware: Hardware | None = None
    precision: _Name = ""
    evaluation: _Count | None = None
    version: _Name
    versions: dict[_Name, _Name] = {}

    @model_validator(mode="after")
    def _is_one_federation(self) -> Run:
        require_names(self.server.name, [site.name for site in self.sites])
        _check_settings(self.settings)
        return self

    def entries(self) -> dict[str, Entry]:
        """Returns the sites and, at the end, the fusion site by their names."""
        return {entry.name: entry for entry in (*self.sites, self.server)}

    def cohort(self) -> str:
        """Returns the cohort of phantoms; empty where the cases are none."""
        return cohort_name(self.setting("data.phantom")) if self.source == "phantom" else ""

    def setting(self, key: str) -> Any:
        """Returns a setting by its dotted key; None where the run has no such setting."""
        value: Any = self.settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def _check_settings(settings: dict[str, Any], depth: int = 1) -> None:
    """Refuses what no job has among its settings: they are put together to names, compared and printed."""
    if depth > _MOST_NESTED or len(settings) > _MOST_SETTINGS:
        raise ValueError(f"settings: expected at most {_MOST_SETTINGS} in a section, and {_MOST_NESTED} sections deep")
    for key, value in settings.items():
        if key in _SETTINGS and not isinstance(value, _SETTINGS[key]):
            raise ValueError(f"settings: {key} = {plain_text(value)}: expected another kind of value")
        if isinstance(value, dict):
            _check_settings(value, depth + 1)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"settings: {plain_text(key)} = {value}: expected a finite number")


class Validation(_Part):
    """A validation of a round."""

    round: _Count
    mdsc: _Share


class Round(_Part):
    """What a round has cost."""

    round: _Count
    steps: _Count | None = None
    bytes_up: _Count = 0
    bytes_down: _Count = 0


class Curves(_Part):
    """The curves of one participant."""

    validation: tuple[Validation, ...] = ()
    rounds: tuple[Round, ...] = ()


@dataclass(frozen=True)
class RunFile:
    """A run and where it was found.

    Args:
        path: of its results.json.
        run: what is in it.
        curves: of every participant, from the history.json beside it; empty where there is none.
    """

    path: Path
    run: Run
    curves: dict[str, Curves] = field(default_factory=dict)


def read(path: Path) -> RunFile:
    """Reads a results.json and the history.json beside it.

    Raises:
        FedMEPDError: one of them cannot be read, or something else is in it; the message names file and key.
    """
    path = Path(path)
    content = _read(path, f"a {FILE_NAME} of fedmepd", _HINT)
    try:
        run = Run.model_validate(content)
    except ValidationError as error:
        raise FedMEPDError(f"{explain(error, str(path))}{_HINT}") from error
    return RunFile(path, run, _curves(path.with_name(HISTORY)))


def _read(path: Path, what: str, hint: str) -> Any:
    refuse_huge(path, f"expected {what}{hint}")
    return read_json(path, what, hint=hint)


def _curves(path: Path) -> dict[str, Curves]:
    if not path.is_file():
        return {}
    hint = f"{_HINT}. Without that file its method is compared without a curve"
    content = _read(path, "the history of a run", hint)
    try:
        return TypeAdapter(dict[str, Curves]).validate_python(content)
    except ValidationError as error:
        raise FedMEPDError(f"{explain(error, str(path))}{hint}") from error
