"""What a site says beside its tensors: profile, counts and scores, checked before the server uses them."""

from __future__ import annotations

from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fedmepd import methods
from fedmepd.config import SITE_NAME, Settings
from fedmepd.disclosure import Withheld
from fedmepd.errors import UpdateRefused, explain
from fedmepd.evaluation.results import ROUNDING
from fedmepd.federation.exchange import SiteProfile
from fedmepd.methods.parts.exact_sum import LARGEST_WEIGHT
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted

_Fraction = Annotated[float, Field(ge=0, le=1)]
# Bounds far above anything true. The sums of many rounds and sites then stay finite, and can be written; those of the
# steps, and of the passes over the cases that they make, are numbers that a comparison of runs still reads.
_Count = Annotated[int, Field(ge=0, le=2**40, strict=True)]
_Steps = Annotated[int, Field(ge=0, le=2**30, strict=True)]
_Seconds = Annotated[float, Field(ge=0, le=1e8)]
_Mib = Annotated[float, Field(ge=0, le=2**40)]
# The diagonal of a volume of many metres.
_Millimetres = Annotated[float, Field(ge=0, le=1e4)]
_Figure = Annotated[float, Field(ge=-1e9, le=1e9)]


def _plain_name(text: str) -> str:
    # A slash would make it another participant's figure, see fedmepd.federation.charts.
    if not text.isprintable() or "/" in text:
        raise ValueError("expected a name without control characters and slashes")
    return text


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


# Which of them a method has, and between which values, is another question: see :func:`check_figures`.
_FigureName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_plain_name)]
_Figures = Annotated[dict[_FigureName, _Figure], Field(max_length=64)]
_Cases = Annotated[int, Field(ge=0, le=int(LARGEST_WEIGHT), strict=True)]


class _CaseCounts(_Report):
    train: _Cases
    validation: _Cases
    test: _Cases


class _Profile(_Report):
    """See :class:`~fedmepd.federation.exchange.SiteProfile`."""

    # At the server, names of files begin with it.
    name: Annotated[str, Field(pattern=SITE_NAME)]
    modalities: list[str]
    cases: _CaseCounts
    source: Literal["phantom", "folder"]
    cross_site: Literal["none", "test", "share"]
    fusion: _CaseCounts | None

    @field_validator("modalities")
    @classmethod
    def _in_order(cls, value: list[str], info: ValidationInfo) -> list[str]:
        modalities = () if info.context is None else info.context.modalities
        if value != [name for name in modalities if name in value]:
            raise ValueError(f"expected some of {', '.join(modalities)}, each once and in this order")
        return value

    @model_validator(mode="after")
    def _modalities_of_cases(self) -> _Profile:
        if not self.modalities and (self.cases.train or self.cases.validation or self.cases.test):
            raise ValueError("there are cases without any modality")
        return self


class _Scores(_Report):
    dice: dict[str, _Fraction]
    mdsc: _Fraction

    @field_validator("dice")
    @classmethod
    def _told_regions(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        return _by_region(value, info.context)

    @model_validator(mode="after")
    def _mean_of_the_regions(self) -> _Scores:
        # A comparison refuses the results of a run in which it is another: one site's would cost all others theirs.
        if not abs(fmean(self.dice.values()) - self.mdsc) < ROUNDING:
            raise ValueError("mdsc is not the mean of the regions' dice")
        return self


class Validation(_Scores):
    """Scores on the validation cases after a round."""

    round: _Count


class _Lesions(_Report):
    """Scores lesion by lesion: means over the test cases, and numbers of lesions of all of them."""

    dice: _Fraction
    hd95_mm: _Millimetres
    found: _Count
    missed: _Count
    invented: _Count


class TestScores(_Scores):
    """Scores on the test cases; a site whose version does not know of them sends no ``nsd`` and no ``lesions``."""

    __test__ = False  # not for pytest

    hd95_mm: dict[str, _Millimetres]
    empty: dict[str, _Count]
    nsd: dict[str, _Fraction] | None = None
    lesions: dict[str, _Lesions] | None = None

    @model_validator(mode="after")
    def _same_regions(self) -> TestScores:
        return _of_the_same_regions(self, *(key for key in ("nsd", "lesions") if getattr(self, key) is not None))


class CaseReport(_Report):
    """Scores of one test case; where a region is empty, see :class:`~fedmepd.evaluation.metrics.CaseScores`."""

    dice: dict[str, _Fraction]
    hd95_mm: dict[str, _Millimetres]
    empty: dict[str, Literal["both", "label", "prediction"] | None]

    @field_validator("dice")
    @classmethod
    def _told_regions(cls, value: dict, info: ValidationInfo) -> dict:
        return _by_region(value, info.context)

    @model_validator(mode="after")
    def _same_regions(self) -> CaseReport:
        return _of_the_same_regions(self)


class CaseReports(_Report):
    """The scores of all test cases, in the order of the test list; both None if the site does not share them."""

    cases: Annotated[list[CaseReport], Field(max_length=int(LARGEST_WEIGHT))] | None = None
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> CaseReports:
        if (self.cases is None) != (self.fingerprint is None):
            raise ValueError("expected both cases and fingerprint, or neither")
        return self


class GlobalScores(_Scores):
    """Scores of the global model on the validation cases."""

    empty: dict[str, _Count]


class StartUpReport(_Report):
    """How long a site took until it could begin.

    Attributes:
        process: seconds from the start of its process until it was ready for the first task: interpreter, imports,
            FLARE, and the way of the task.
        data: seconds to find, check and split its cases; where they are phantoms, to make them.

    A site may keep them to itself: they are None then.
    """

    process: _Seconds | None
    data: _Seconds | None


class SpentPrivacy(_Report):
    """What a participant has spent of its privacy, see :meth:`fedmepd.privacy.participant.Privacy.spent`.

    Attributes:
        unit: what counts as one: a patient, with all of its examinations.
        epsilon, delta: of all releases of the run so far.
        budget: the epsilon beyond which it trains no further.
        noise: standard deviation of the noise in a step, in clips; None as long as there was none.
        vector_noise: the same of class vectors; None where none leave.
        clip: the largest norm of a patient's gradient.
        rate: with which probability a patient is in a step.
    """

    unit: Literal["patient"]
    epsilon: Annotated[float, Field(ge=0, le=1e12)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    budget: Annotated[float, Field(gt=0, le=1e12)]
    noise: Annotated[float, Field(gt=0, le=1e12)] | None
    vector_noise: Annotated[float, Field(gt=0, le=1e12)] | None
    clip: Annotated[float, Field(gt=0, le=1e12)]
    rate: Annotated[float, Field(gt=0, le=1)]


class TrainReport(_Report):
    """A site's report on a round.

    ``figures`` are the method's own, beside the losses. ``steps`` counts those of every network that was trained.
    ``seconds`` is the site's whole work on it. Training has a part of it (with taking in what came, and making ready
    what is read for the first time), validation another; the rest is saving the state. ``peak_mib`` is the most memory
    that its process has held; None where it is not known. A site may keep durations, memory, losses and validation to
    itself: they are None or empty then.
    """

    cases: _Cases
    losses: _Figures
    figures: _Figures
    steps: _Steps
    train_seconds: _Seconds | None
    validation_seconds: _Seconds | None
    seconds: _Seconds | None
    validation: Validation | None
    peak_mib: _Mib | None = None
    privacy: SpentPrivacy | None = None


class TestReport(_Report):
    """A site's report on the final test.

    ``withheld``: why there are no scores although there are test cases. The round that was best on validation is not
    told then either.
    """

    __test__ = False

    test: TestScores | None
    withheld: Withheld | None = None
    selected_round: _Count | None
    each: CaseReports = CaseReports()

    @model_validator(mode="after")
    def _cases_make_the_means(self) -> TestReport:
        _require_means(self.test, self.each)
        return self


class CrossSiteReport(_Report):
    """A site's report on a model of others: scores on its test cases, and how many of them the model could be used on.

    Attributes:
        test: None where no case has a modality of the model.
        withheld: why there are no scores although it has been tested.
    """

    test: TestScores | None
    withheld: Withheld | None = None
    cases: _Count


class FusionReport(_Report):
    """What a fusion site elsewhere reports on a task.

    Attributes:
        lacks_weights: whether it does not hold what the server believes, so that everything has to be sent again.
        losses, figures, cases, steps, peak_mib, privacy: of a round of training.
        seconds: its whole work on the task.
        scores: of the global model; without distances where it was validated.
        withheld: why there are none although it was tested.
        each: of its test, see :class:`CaseReports`.
        cross_site: of a site's model.
    """

    lacks_weights: bool = False
    losses: _Figures = {}
    figures: _Figures = {}
    cases: _Cases = 0
    steps: _Steps = 0
    seconds: _Seconds | None = 0.0
    peak_mib: _Mib | None = None
    privacy: SpentPrivacy | None = None
    scores: TestScores | GlobalScores | None = None
    withheld: Withheld | None = None
    each: CaseReports = CaseReports()
    cross_site: CrossSiteReport | None = None

    @model_validator(mode="after")
    def _cases_make_the_means(self) -> FusionReport:
        _require_means(self.scores, self.each)
        return self


def _require_means(scores: _Scores | None, each: CaseReports) -> None:
    """Refuses scores of cases without the means, or with other ones: no comparison would read them."""
    if each.cases is None:
        return
    if scores is None:
        raise ValueError("each.cases: there are scores of cases without their means")
    for region, mean in scores.dice.items():
        values = [case.dice[region] for case in each.cases if region in case.dice]
        if not values or not abs(fmean(values) - mean) < ROUNDING:
            raise ValueError(f"each.cases: their mean Dice of {region} is another than the one that is told")


def _of_the_same_regions(scores: Any, *further: str) -> Any:
    keys = ("hd95_mm", "empty", *further)
    if any(list(getattr(scores, key)) != list(scores.dice) for key in keys):
        raise ValueError(f"expected the same regions of dice, {', '.join(keys[:-1])} and {keys[-1]}, in this order")
    return scores


def _by_region(value: dict, task: Task | None) -> dict:
    """Checks that a dictionary holds the task's regions in order, or those of them that the site's labels tell."""
    regions = [] if task is None else list(task.regions)
    if not value or list(value) != [region for region in regions if region in value]:
        raise ValueError(f"expected some of the regions {', '.join(regions)}, in this order")
    return value


def check_report(site: str, kind: type[_Report], report: Any, task: Task | None = None) -> dict[str, Any]:
    """Returns a site's report as plain values.

    Args:
        site: whose it is.
        kind: of report.
        report: what the site sent.
        task: of the job, which decides regions and modalities; None for a kind without either.

    Raises:
        UpdateRefused: a key is missing, unknown or of the wrong kind; the message names site and key.
    """
    try:
        return kind.model_validate(report, context=task).model_dump()
    except ValidationError as error:
        raise UpdateRefused(explain(error, f"report of {site} refused")) from error


def check_profile(site: str, profile: Any, task: Task) -> SiteProfile:
    """Returns what a site says of itself.

    Args:
        site: the name of the site that answered.
        profile: its answer.
        task: of the job.

    Raises:
        UpdateRefused: a key is missing, unknown or of the wrong kind, or it is the profile of another site; the message
            names site and key.
    """
    profile = check_report(site, _Profile, profile, task)
    if profile["name"] != site:
        raise UpdateRefused(f"report of {site} refused: name = {profile['name']!r}: expected {site!r}")
    return SiteProfile.from_json(profile)


def check_figures(owner: str, report: dict[str, Any], settings: Settings) -> None:
    """Refuses losses and figures that the job's method does not have, and values that no honest participant finds.

    Args:
        owner: whose report it is.
        report: a checked :class:`TrainReport` or :class:`FusionReport`.
        settings: of the job.

    Raises:
        UpdateRefused: the message names the participant and the figure.
    """
    method, task = methods.find(settings.method), find_task(settings.task)
    for key, bounds in (("losses", method.losses(task)), ("figures", method.figures(task))):
        for name, value in report[key].items():
            if name not in bounds:
                expected = f"expected some of {', '.join(bounds)}" if bounds else "expected none"
                raise UpdateRefused(f"report of {owner} refused: {method.title} has no {key}.{name}: {expected}")
            least, most = bounds[name]
            if not least <= value <= most:
                raise UpdateRefused(
                    f"report of {owner} refused: {key}.{name} = {value:.6g}: expected {least:g} to {most:g}"
                )


def check_trained_on(owner: str, reported: int, told: int) -> None:
    """Refuses a round on more cases than a participant told when it logged in: means are weighted by cases.

    Args:
        owner: whose report it is.
        reported: number of cases of the round.
        told: its number of training cases, which everyone can read in the results.

    Raises:
        UpdateRefused: the message names the participant and both numbers.
    """
    if reported > told:
        raise UpdateRefused(
            f"report of {owner} refused: cases = {reported}: it had {counted(told, 'training case')} when it logged "
            "in; start it again if it has more by now"
        )


def check_validated(site: str, validation: dict[str, Any] | None, round_number: int) -> None:
    """Refuses scores that are said to be of another round.

    Raises:
        UpdateRefused: the message names the site and both rounds.
    """
    if validation is not None and validation["round"] != round_number:
        raise UpdateRefused(
            f"report of {site} refused: validation.round = {validation['round']}: expected {round_number}"
        )


def check_cases(site: str, each: dict[str, Any], expected: int) -> dict[str, Any]:
    """Returns a checked :class:`CaseReports` as results hold it: ``test_cases`` and ``test_fingerprint``.

    Args:
        site: whose it is.
        each: as plain values.
        expected: number of the site's test cases.

    Raises:
        UpdateRefused: there are scores of more or of fewer cases.
    """
    cases = each["cases"]
    if cases is not None and len(cases) != expected:
        raise UpdateRefused(
            f"report of {site} refused: each.cases has scores of {counted(len(cases), 'case')}: expected {expected}"
        )
    return {"test_cases": cases, "test_fingerprint": each["fingerprint"]}
