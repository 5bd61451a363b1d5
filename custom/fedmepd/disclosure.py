"""What a site tells others about its cases: the one place that decides it, for reports, scores and anchors alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedmepd.config import Settings
from fedmepd.released_means import ReleasedMeans
from fedmepd.text_table import counted

# Why scores do not leave a site.
Withheld = Literal["few cases", "few differ", "unsure", "not allowed"]
_REASONS = {
    "few cases": "the site has cases of fewer patients for it than its min_count",
    "few differ": "together with earlier means, they would tell of fewer patients than the site's min_count",
    "unsure": "it overlaps with too many earlier means to find out whether they tell of few patients together",
    "not allowed": "the site's allow, or its differential privacy, says no",
}


def reason_of(withheld: Withheld) -> str:
    """Returns why scores do not leave a site, for the results."""
    return _REASONS[withheld]


# Where a case has a region, by where it is empty (see fedmepd.evaluation.metrics.CaseScores).
_THERE = {
    None: ("label", "prediction"),
    "label": ("prediction",),
    "prediction": ("label",),
    "both": (),
}


class Allow(BaseModel):
    """Kinds of values that may leave a site beside its updates. What is false stays, whatever a job asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    losses: bool = Field(True, description="mean losses of a round, and the method's own figures")
    validation_scores: bool = Field(True, description="mean scores on the validation cases")
    test_scores: bool = Field(True, description="mean scores of the site's own model on the test cases")
    case_scores: bool = Field(True, description="scores of single test cases; only where `case_scores` is share")
    model: bool = Field(True, description="the site's model for tests at other sites; only where `cross_site` is share")
    model_scores: bool = Field(
        True, description="mean scores of others' models on the test cases; only where `cross_site` is not none"
    )
    anchors: bool = Field(True, description="class anchors of the fusion site")
    durations: bool = Field(True, description="seconds that the site's work took")
    memory: bool = Field(True, description="the most memory that the job's process has held")
    live: bool = Field(True, description="phase, round and step for the administrator's console")
    other: bool = Field(
        False, description="what other components of a job, such as filters, add to an answer beside its tensors"
    )


def _patient_of_each(cases: Iterable[Any]) -> dict[str, str]:
    return {case.name: case.patient for case in cases}


def patients_of(cases: Iterable[Any]) -> int:
    """Returns how many patients cases are of: several examinations of one patient are still one patient's."""
    return len({case.patient for case in cases})


class Told:
    """Counts the patients behind each region's figures.

    Where a case has the region neither in its label nor in the segmentation, or in one of them alone, its scores follow
    from rules. So the mean over ten cases tells the score of one, if that is the only one that has the region in both;
    and a number of lesions is that of the cases that have the region in the one, or in the other.

    Args:
        cases: that are scored, in the order of their places.
    """

    def __init__(self, cases: Iterable[Any] = ()):
        self._cases = list(cases)
        # By region, which cases' labels tell it, and which have it in the label, in the segmentation, in both; and the
        # patient of each.
        self._whose: dict[str, dict[str, dict[str, str]]] = {}

    def watch(self, place: int, case: Any, prediction: Any, scores: Any) -> None:
        """Takes a case; see :func:`~fedmepd.federation.evaluate.score_cases`."""
        scored = self._cases[place]
        for region, empty in scores.empty.items():
            there = _THERE[empty]
            for where in ["told", *there, *(["both"] if len(there) == 2 else [])]:
                self._whose.setdefault(region, {}).setdefault(where, {})[scored.name] = scored.patient

    def behind(self, region: str) -> dict[str, dict[str, str]]:
        """Returns the cases whose labels tell a region, and those whose labels have it, each with its patient.

        Of the others a region's score follows from the segmentation alone, so that they hide nobody.
        """
        whose = self._whose.get(region, {})
        return {f"{region}, {where}": whose.get(where, {}) for where in ("told", "label")}

    def fewest(self, region: str) -> int:
        """Returns the smallest number of patients behind any of a region's figures; 0 without cases.

        What no case has does not count: figures that follow from rules alone tell no case's score.
        """
        return min((len(set(of.values())) for of in self._whose.get(region, {}).values()), default=0)


@dataclass(frozen=True)
class Disclosure:
    """Decides what leaves a site.

    Args:
        fewest: patients behind any mean that leaves, at least.
        allow: kinds of values.
        released: knows over whose cases means have left before.
    """

    fewest: int = 1
    allow: Allow = Allow()
    released: ReleasedMeans = field(default_factory=ReleasedMeans, compare=False)

    def describe(self) -> str:
        """Returns the decision in words."""
        kinds = self.allow.model_dump(exclude={"other"})
        refused = [kind for kind, allowed in kinds.items() if not allowed]
        but = f" but {', '.join(refused)}" if refused else ""
        but += ", and what other components of a job add" if self.allow.other else ""
        return f"no mean over fewer than {counted(self.fewest, 'patient')}; the site allows all kinds of values{but}"

    def of_source(self, source: str) -> Disclosure:
        """Returns the decision about cases of a source: made-up ones (``phantom``) are nobody's, any number does."""
        return replace(self, fewest=1, released=ReleasedMeans()) if source == "phantom" else self

    def raise_floors(self, settings: Settings) -> Settings:
        """Returns a job's settings with no smaller number of patients behind what leaves than the site wants."""
        return settings.with_fewest(self.fewest)

    def under_privacy(self, shares_scores: bool) -> Disclosure:
        """Returns the decision where training has differential privacy.

        Losses stay, since they follow from the images without noise. Scores stay unless the site shares them: no noise
        protects the cases behind them.
        """
        scores = () if shares_scores else ("validation_scores", "test_scores", "case_scores", "model_scores")
        return replace(self, allow=self.allow.model_copy(update=dict.fromkeys(("losses", *scores), False)))

    def losses(self, cases: Iterable[Any], losses: dict[str, float]) -> dict[str, float]:
        """Returns mean losses or figures of a round as they may leave: all or none.

        Args:
            cases: behind them.
            losses: by name.
        """
        behind = _patient_of_each(cases)
        allowed = bool(losses) and self.allow.losses and len(set(behind.values())) >= self.fewest
        return losses if allowed and self.released.admit({"losses": behind}, self.fewest) is None else {}

    def tells_steps(self) -> bool:
        """Whether the loss of a single step, which may be that of one patient, may be seen while training runs."""
        return self.allow.live and self.allow.losses and self.fewest <= 1

    def scores(
        self, kind: str, scores: dict[str, Any] | None, told: Told
    ) -> tuple[dict[str, Any] | None, Withheld | None]:
        """Returns mean scores as they may leave: without the regions that too few patients' cases tell, or have.

        Args:
            kind: key of :class:`Allow`.
            scores: ``dice`` by region, ``mdsc``, and others by region; None without cases.
            told: has counted the patients behind each region's figures.

        Returns:
            the scores, and why there are none.
        """
        if scores is None:
            return None, None
        if not getattr(self.allow, kind):
            return None, "not allowed"
        kept = [region for region in scores["dice"] if told.fewest(region) >= self.fewest]
        if not kept:
            return None, "few cases"
        verdicts = {region: self.released.admit(told.behind(region), self.fewest) for region in kept}
        kept = [region for region in kept if verdicts[region] is None]
        if not kept:
            return None, "few differ" if "few" in verdicts.values() else "unsure"
        if len(kept) == len(scores["dice"]):
            return scores, None
        left = {
            key: {region: value[region] for region in kept} if isinstance(value, dict) else value
            for key, value in scores.items()
        }
        return left | {"mdsc": fmean(left["dice"].values())}, None

    def seconds(self, values: dict[str, float]) -> dict[str, float | None]:
        """Returns durations, or None in place of each."""
        return values if self.allow.durations else dict.fromkeys(values)

    def memory(self, mib: float | None) -> float | None:
        """Returns the memory that was held, or None."""
        return mib if self.allow.memory else None


# Of whoever is not told otherwise.
OPEN = Disclosure()
