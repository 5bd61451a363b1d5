"""What results.json, history.json and site.json have to hold so that tables, figures and pages can show them.

They may come from another hospital's server, and so hold anything. Keys that nothing shows are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    ValidationError,
    field_validator,
    model_validator,
)

from fedmepd.config import MOST_ROUNDS
from fedmepd.errors import FedMEPDError, explain

_Fraction = Annotated[float, Field(ge=0, le=1)]
# Far above anything true: what is drawn must have a size.
_Amount = Annotated[float, Field(ge=0, le=1e15)]
_Figure = Annotated[float, Field(ge=-1e30, le=1e30)]
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Round = Annotated[int, Field(ge=0, le=MOST_ROUNDS)]
_ByRegion = dict[str, _Fraction]
_Cases = Annotated[dict[Literal["train", "validation", "test"], _Count], Field(min_length=3)]
_Filters = Annotated[dict[str, Annotated[int, Field(ge=1, le=2**31)]], Field(max_length=1000)]
# Each convolution at each site in each round is a number of 8 bytes in the figure of personal filters.
_MOST_SHARES = 2 * 10**8
# The name of a picture is a part of the name of a file.
_Pictures = dict[Annotated[str, Field(pattern="^[a-z]+$")], _Fraction]


class _Part(BaseModel):
    # Nothing is converted, since what is shown is the content itself.
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Scores(_Part):
    dice: _ByRegion
    mdsc: _Fraction


class _Validation(_Scores):
    round: _Round


class _Lesions(_Part):
    dice: _Fraction
    hd95_mm: _Amount
    found: _Count
    missed: _Count
    invented: _Count


class _Test(_Scores):
    hd95_mm: dict[str, _Amount]
    empty: dict[str, _Count]
    nsd: _ByRegion | None = None
    lesions: dict[str, _Lesions] | None = None


class _Means(_Part):
    """Of no site, they are None."""

    mdsc: _Fraction | None
    dice: _ByRegion | None


class _TestMeans(_Means):
    hd95_mm: dict[str, _Amount] | None
    nsd: _ByRegion | None = None
    lesions: dict[str, _Lesions] | None = None
    validation: _Means
    personal_share: _Fraction | None


class _Missed(_Part):
    round: _Round
    reason: str


class _Limited(_Part):
    round: _Round
    times_median: _Amount | None = None
    filters: _Count | None = None

    @model_validator(mode="after")
    def _says_how_much(self) -> _Limited:
        if self.times_median is None and not self.filters:
            raise ValueError("expected times_median or filters: how much was scaled down")
        return self


class _Privacy(_Part):
    epsilon: _Amount
    budget: _Amount
    delta: _Fraction


class _Case(_Part):
    empty: dict[str, Literal["both", "label", "prediction"] | None]


class _Entry(_Part):
    name: str
    modalities: list[str]
    cases: _Cases
    personal_share: _Fraction | None
    test: _Test | None
    untested: str | None
    validation: _Validation | None
    joined: _Round
    rounds_taken: list[_Round]
    rounds_missed: list[_Missed]
    limited: list[_Limited]
    # Older versions write none of these.
    test_cases: list[_Case] | None = None
    privacy: _Privacy | None = None
    ended: _Round | None = None


class _Overhead(_Part):
    share_of_training: _Figure | None


class _TimedRound(_Part):
    """Beside these, seconds by phase, which earlier versions could count below 0."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Figure]

    round: _Round
    total: _Amount
    last_site: str | None = None
    mean_site: dict[str, _Figure] = {}


class _WholeSeconds(_Part):
    start_up: _Amount
    testing: _Amount


class _Timing(_Part):
    seconds: _WholeSeconds
    mean_round: dict[str, _Figure] | None
    overhead: _Overhead
    rounds: list[_TimedRound]


class _Cell(_Part):
    cases: _Count | None
    test: _Scores | None
    reason: str | None

    @model_validator(mode="after")
    def _scores_or_a_reason(self) -> _Cell:
        if self.test is None and self.reason is None:
            raise ValueError("expected scores in test, or a reason")
        if self.test is not None and self.cases is None:
            raise ValueError("expected the number of cases beside the scores")
        return self


class _LeftOut(_Part):
    name: str
    reason: str


class _FusionPlace(_Part):
    site: str = ""


class _Data(_Part):
    phantom: bool | str


class _Settings(_Part):
    """The settings that decide how the rest is shown; all others are listed as they are."""

    task: str | None = None
    data: _Data | None = None

    @field_validator("task")
    @classmethod
    def _is_told(cls, value: str | None) -> str:
        if value is None:
            raise ValueError("expected the name of a task")
        return value


def _is_a_date(text: str) -> str:
    datetime.fromisoformat(text)
    return text


class _Run(_Part):
    method: str
    run_name: str
    seed: _Count
    rounds: _Round
    round: _Round
    settings: _Settings
    versions: dict[str, str] = {}
    version: str


class Results(_Run):
    """results.json, see :func:`fedmepd.evaluation.results.build`."""

    status: Literal["running", "finished"]
    date: Annotated[str, AfterValidator(_is_a_date)] | None = None
    seconds: _Amount
    timing: _Timing
    mean: _TestMeans
    server: _Entry
    sites: list[_Entry]
    left_out: list[_LeftOut] = []
    fusion: _FusionPlace = _FusionPlace()
    filters: _Filters = {}
    cross_site: dict[str, dict[str, _Cell]] | None = None
    source: Literal["phantom", "folder"] | None = None

    @model_validator(mode="after")
    def _cohort_is_told(self) -> Results:
        if self.source == "phantom" and self.settings.data is None:
            raise ValueError("settings.data.phantom is missing: expected the cohort of the phantoms")
        return self

    @model_validator(mode="after")
    def _shares_can_be_drawn(self) -> Results:
        if len(self.filters) * self.round * len(self.sites) > _MOST_SHARES:
            raise ValueError(f"filters, round and sites: expected at most {_MOST_SHARES:g} shares of personal filters")
        return self

    @model_validator(mode="after")
    def _scores_have_a_mean(self) -> Results:
        for key, mean in (("test", self.mean), ("validation", self.mean.validation)):
            if mean.mdsc is None and any(getattr(site, key) for site in self.sites):
                raise ValueError(f"mean: sites have {key} scores, and there is no mean of them")
        return self

    @model_validator(mode="after")
    def _cells_are_of_the_sites(self) -> Results:
        owners = require_names(self.server.name, [entry.name for entry in self.sites])
        rows = [row.keys() for row in (self.cross_site or {}).values()]
        if any(row != rows[0] or not row <= owners for row in rows):
            raise ValueError("cross_site: expected a score of every model at the same sites of this run")
        return self


class _ShortenedScores(_Scores):
    hd95_mm: dict[str, _Amount] = {}


class _ShortenedEntry(_Part):
    name: str
    modalities: list[str]
    cases: _Cases
    test: _ShortenedScores | None


class Shortened(_Run):
    """A results.json that holds of a run what a comparison reads; see :mod:`fedmepd.comparing.run`."""

    status: Literal["running", "finished"]
    seconds: _Amount
    server: _ShortenedEntry
    sites: list[_ShortenedEntry]

    @model_validator(mode="after")
    def _participants_have_names_of_their_own(self) -> Shortened:
        require_names(self.server.name, [entry.name for entry in self.sites])
        return self


class _RoundOfCurves(_Part):
    round: _Round
    total: _Figure | None = None
    bytes_up: _Amount = 0
    bytes_down: _Amount = 0


# A round and how many filters are personal from then on.
_Step = Annotated[list[_Count], Field(min_length=2, max_length=2)]


class Curves(_Part):
    """What history.json holds of each participant, see :class:`fedmepd.federation.records.Records`."""

    validation: list[_Validation]
    rounds: list[_RoundOfCurves]
    personal: dict[str, list[_Step]]


class History(RootModel[dict[str, Curves]]):
    """history.json: curves by participant."""

    model_config = ConfigDict(strict=True)


class SiteResults(_Run):
    """site.json, see :func:`fedmepd.evaluation.site_results.build`."""

    name: str
    modalities: list[str]
    cases: _Cases
    status: str
    test: _Test | None
    selected_round: _Round | None
    examples: _Pictures
    filters: _Filters
    history: Curves


def require_names(server: str, sites: Sequence[str]) -> set[str]:
    """Returns the names of all participants of a run.

    Raises:
        ValueError: two have the same.
    """
    names = {server, *sites}
    if len(names) <= len(sites):
        raise ValueError("two participants of one name: expected every site once, and none called as the server")
    return names


def require_results(content: dict[str, Any], path: Path, name: str) -> None:
    """Refuses content of a results.json that cannot be shown; see :func:`require`.

    Raises:
        FedMEPDError: as of :func:`require`; or the run was shortened, and is otherwise as it should be.
    """
    required = {key for key, field in Results.model_fields.items() if field.is_required()}
    if required - content.keys() != required - Shortened.model_fields.keys():
        require(Results, content, path, name)
        return
    require(Shortened, content, path, name)
    show = f"fedmepd compare show {quote(str(path.parent))}"
    raise FedMEPDError(f"{path} is a shortened run, such as those in docs/results: only `{show}` reads it")


def require(kind: type[BaseModel], content: Any, path: Path, name: str) -> None:
    """Refuses content that cannot be shown.

    Args:
        kind: one of the public classes of this module.
        content: of the file, as plain values.
        path: the file.
        name: that fedmepd gives such files.

    Raises:
        FedMEPDError: a key that is shown is missing or of the wrong kind; the message names file and key.
    """
    try:
        kind.model_validate(content)
    except ValidationError as error:
        raise FedMEPDError(
            f"{explain(error, str(path))}. This is no {name} of this version of fedmepd: restore it if it is damaged, "
            "or read it with the version that wrote it"
        ) from error
