"""What a site reports beside its tensors: counts and scores, checked before the server uses them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from fedmepd.errors import UpdateRefused
from fedmepd.federation.exact_sum import LARGEST_WEIGHT
from fedmepd.tasks.task import Task

_Fraction = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0, strict=True)]
_Seconds = Annotated[float, Field(ge=0)]


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Scores(_Report):
    dice: dict[str, _Fraction]
    mdsc: _Fraction

    @field_validator("dice")
    @classmethod
    def _every_region(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        return _by_region(value, info.context)


class Validation(_Scores):
    """Scores on the validation cases after a round."""

    round: _Count


class TestScores(_Scores):
    """Scores on the test cases."""

    __test__ = False  # not for pytest

    hd95_mm: dict[str, Annotated[float, Field(ge=0)]]
    empty: dict[str, _Count]

    @field_validator("hd95_mm", "empty")
    @classmethod
    def _every_region_too(cls, value: dict, info: ValidationInfo) -> dict:
        return _by_region(value, info.context)


class StartUpReport(_Report):
    """How long a site took until it could begin.

    Attributes:
        process: seconds from the start of its process until it was ready for the first task: interpreter, imports,
            FLARE, and the way of the task.
        data: seconds to find, check and split its cases; where they are phantoms, to make them.
    """

    process: _Seconds
    data: _Seconds


class TrainReport(_Report):
    """A site's report on a round.

    ``seconds`` is the site's whole work on it. Training has a part of it (with taking in what came, and making ready
    what is read for the first time), validation another; the rest is saving the state.
    """

    cases: Annotated[int, Field(ge=0, le=int(LARGEST_WEIGHT), strict=True)]
    losses: dict[str, float]
    steps: _Count
    train_seconds: _Seconds
    validation_seconds: _Seconds
    seconds: _Seconds
    validation: Validation | None


class TestReport(_Report):
    """A site's report on the final test."""

    __test__ = False

    test: TestScores | None
    selected_round: _Count


class CrossSiteReport(_Report):
    """A site's report on a model of others: scores on its test cases, and how many of them the model could be used on.

    Attributes:
        test: None where no case has a modality of the model.
    """

    test: TestScores | None
    cases: _Count


def _by_region(value: dict, task: Task | None) -> dict:
    regions = [] if task is None else list(task.regions)
    if list(value) != regions:
        raise ValueError(f"expected the regions {', '.join(regions)}")
    return value


def check_report(site: str, kind: type[_Report], report: Any, task: Task | None = None) -> dict[str, Any]:
    """Returns a site's report as plain values.

    Args:
        site: whose it is.
        kind: of report.
        report: what the site sent.
        task: whose regions the scores are of; None for a kind without scores.

    Raises:
        UpdateRefused: a key is missing, unknown or of the wrong kind; the message names site and key.
    """
    try:
        return kind.model_validate(report, context=task).model_dump()
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "report"
        raise UpdateRefused(
            f"report of {site} refused: {key} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
        ) from error
