"""What a site reports beside its tensors: counts and scores, checked before the server uses them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedmepd.errors import UpdateRefused, explain
from fedmepd.federation.exact_sum import LARGEST_WEIGHT
from fedmepd.modalities import BRATS

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
    def _every_region(cls, value: dict[str, float]) -> dict[str, float]:
        return _by_region(value)


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
    def _every_region_too(cls, value: dict) -> dict:
        return _by_region(value)


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


def _by_region(value: dict) -> dict:
    if list(value) != list(BRATS.regions):
        raise ValueError(f"expected the regions {', '.join(BRATS.regions)}")
    return value


def check_report(site: str, kind: type[_Report], report: Any) -> dict[str, Any]:
    """Returns a site's report as plain values.

    Raises:
        UpdateRefused: a key is missing, unknown or of the wrong kind; the message names site and key.
    """
    try:
        return kind.model_validate(report).model_dump()
    except ValidationError as error:
        raise UpdateRefused(explain(error, f"report of {site} refused")) from error
