"""What commands print with ``--json``: the keys that scripts may rely on. More keys may come, none of these goes.

Fractions are 0 to 1, distances millimetres, volumes millilitres, times seconds. null: not known, or not defined.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """An object of the output: of the documented keys none may lack, others are left alone."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class FoundKind(Part):
    """Findings of one kind."""

    severity: Literal["error", "warning", "note"] = Field(description="an error keeps a case from being used")
    kind: str = Field(description="what it is, as docs/data.md lists it; names no case and no file")
    count: int = Field(description="how many there are")
    texts: list[str] | None = Field(description="each with the names of case and file; null with --anonymous")


class ModalitySet(Part):
    """Cases with the same modalities."""

    modalities: list[str] = Field(description="of these cases")
    cases: int = Field(description="how many have just these")


class DataSet(Part):
    """One data set of the folder."""

    name: str | None = Field(description="of the site; null if the folder is one data set")
    layout: str = Field(description="what was found, in words")
    read: bool = Field(description="false for a site that is not read since it has another one's files or folder")
    cases: int = Field(description="all cases")
    patients: int = Field(description="whose they are")
    labelled: int = Field(description="cases with a label")
    modalities: list[ModalitySet] = Field(description="the commonest first")
    parts: dict[str, int] | None = Field(
        description="cases for `train`, `validation`, `test` and `inference only`; null if nothing has been decided"
    )


class DataCheck(Part):
    """``fedmepd data check``."""

    version: str = Field(description="of fedmepd")
    task: str = Field(description="what the cases are of")
    errors: int = Field(description="how many; with any, a site would refuse to train")
    warnings: int = Field(description="how many")
    findings: list[FoundKind] = Field(description="what was found, errors first")
    data_sets: list[DataSet] = Field(description="one for each site of a folder of sites, else one")
    overlaps: list[str] = Field(
        description="pairs of sites that share files, volumes or patients for sure; each is an error"
    )


class SiteCheck(Part):
    """One check of ``fedmepd doctor``."""

    topic: str = Field(description="what was looked at")
    status: Literal["ok", "note", "warning", "error"] = Field(description="with an error the site cannot take part")
    kind: str = Field(description="what was found, as docs/doctor.md lists it")
    text: str = Field(description="the particulars")
    advice: str = Field(description="what to do; empty if there is nothing to do")


class Doctor(Part):
    """``fedmepd doctor``."""

    name: str = Field(description="of the site or server")
    role: str = Field(description="`site` or `server`")
    errors: int = Field(description="how many")
    warnings: int = Field(description="how many")
    checks: list[SiteCheck] = Field(description="in the order in which they are made")


class Cases(Part):
    """Numbers of cases."""

    train: int = Field(description="for training")
    validation: int = Field(description="to choose the best model")
    test: int = Field(description="for the final test")


class Validation(Part):
    """Scores on validation cases."""

    mdsc: float | None = Field(description="mean Dice of the regions")
    dice: dict[str, float] | None = Field(description="by region")


class Test(Validation):
    """Scores on test cases."""

    hd95_mm: dict[str, float] | None = Field(description="95th percentile of the Hausdorff distance by region")


class Mean(Test):
    """Means over the sites."""

    validation: Validation = Field(description="of the last validation")
    personal_share: float | None = Field(description="share of the decoder's filters that are personal")


class Missed(Part):
    """A round without the participant."""

    round: int = Field(description="which")
    reason: str = Field(description="why")


class Participant(Part):
    """A site, or the fusion site."""

    name: str = Field(description="of the site; `server` for the fusion site, wherever it is")
    modalities: list[str] = Field(description="that it has")
    cases: Cases = Field(description="that it has")
    test: Test | None = Field(description="its model on its test cases; null until the end of the run")
    untested: str | None = Field(description="why there is no test")
    validation: Validation | None = Field(description="its last one; null before it")
    rounds_taken: list[int] = Field(description="rounds in which it took part")
    rounds_missed: list[Missed] = Field(description="rounds in which it did not")
    personal_share: float | None = Field(description="share of the decoder's filters that are personal")


class LeftOut(Part):
    """A site that took no part."""

    name: str = Field(description="of the site")
    reason: str = Field(description="what it, or the server, said")


class Results(Part):
    """``fedmepd results``; the run's `results.json` is the same."""

    method: str = Field(description="of the job")
    run_name: str = Field(description="empty without a name")
    seed: int = Field(description="of every random number")
    status: Literal["running", "finished"] = Field(description="`running` until everything is tested")
    round: int = Field(description="the last finished round")
    rounds: int = Field(description="of the job")
    date: str = Field(description="when this was written, ISO 8601")
    seconds: float = Field(description="that the run has taken so far")
    source: Literal["phantom", "folder"] | None = Field(description="phantoms, or cases of data folders")
    mean: Mean = Field(description="of the sites")
    server: Participant = Field(description="the fusion site")
    sites: list[Participant] = Field(description="in the natural order of their names")
    left_out: list[LeftOut] = Field(description="sites of the job that took no part at all")
    settings: dict[str, Any] = Field(description="of the job, nested as in [Settings of a job](#settings-of-a-job)")
    timing: dict[str, Any] = Field(description="where the time went, see [results.md](results.md)")
    version: str = Field(description="of fedmepd at the server")
    versions: dict[str, str] = Field(description="of Python and packages at the server")


class Average(Part):
    """An average over cases."""

    cases: int = Field(description="over how many")
    mean: float | None = Field(description="their mean")
    median: float | None = Field(description="their median")
    low: float | None = Field(description="lower end of the mean's 95 % interval")
    high: float | None = Field(description="upper end")


class RegionMeasures(Part):
    """One region of one case."""

    dice: float = Field(description="overlap")
    hd95_mm: float = Field(description="95th percentile of the Hausdorff distance")
    sensitivity: float | None = Field(description="share of the label's voxels that were found")
    specificity: float | None = Field(description="share of the other voxels that were left out")
    label_ml: float = Field(description="volume of the label")
    prediction_ml: float = Field(description="volume of the segmentation")


class CaseMeasures(Part):
    """One case."""

    case: str = Field(description="its name")
    mdsc: float | None = Field(description="mean Dice of its regions; null if its label does not tell all")
    regions: dict[str, RegionMeasures] = Field(description="by region")


class RegionAverages(Part):
    """One region over all cases."""

    dice: Average = Field(description="overlap")
    hd95_mm: Average = Field(description="95th percentile of the Hausdorff distance")
    empty: dict[str, int] = Field(
        description="cases without the region in `both`, only the `label`, only the `prediction`"
    )


class EvaluationSummary(Part):
    """Averages over all cases."""

    cases: int = Field(description="that were scored")
    mdsc: Average = Field(description="mean Dice of the regions")
    regions: dict[str, RegionAverages] = Field(description="by region, of every measure")


class Evaluation(Part):
    """``fedmepd evaluate``; `evaluation.json` of `--out` is the same."""

    version: str = Field(description="of fedmepd")
    task: str = Field(description="whose regions are scored")
    cases: list[CaseMeasures] = Field(description="every case")
    summary: EvaluationSummary = Field(description="averages with their uncertainty")
    without_label: list[str] = Field(description="segmentations that are left out because they have no label")
    without_prediction: list[str] = Field(description="labels that are left out because they have no segmentation")


class Estimate(Part):
    """A mean with its uncertainty."""

    mean: float | None = Field(description="over seeds and cases")
    sd: float | None = Field(description="standard deviation over seeds")
    low: float | None = Field(description="lower end of the 95 % interval")
    high: float | None = Field(description="upper end")


class Difference(Part):
    """The reference against another method."""

    columns: dict[str, Estimate] = Field(description="mDSC of the reference minus the other's: by site, and summaries")
    sentence: str = Field(description="what may be said")


class Comparison(Part):
    """``fedmepd compare show``; `comparison.json` of `--out` is the same."""

    version: str = Field(description="of fedmepd")
    task: str = Field(description="of the runs")
    methods: list[str] = Field(description="that are compared")
    against: str = Field(description="the reference: the others are compared with it")
    seeds: list[int] = Field(description="that every method has")
    sites: list[str] = Field(description="that are tested in every run")
    regions: list[str] = Field(description="that are scored")
    scores: dict[str, dict[str, Estimate]] = Field(
        description="mDSC by method, then by `mean of the sites`, `worst site`, `server` (the fusion site) and site"
    )
    differences: dict[str, Difference] = Field(description="by method, without the reference")
    sentences: list[str] = Field(description="the differences in words")
    notes: list[str] = Field(description="what to bear in mind, such as runs that are left out")


class WatchLine(Part):
    """``fedmepd watch``: one such object on every line."""

    event: str = Field(
        description="`round 0`, `round 1`, ..., `testing`, `end`, or `unknown`: what the server tells is not understood"
    )
    line: str = Field(description="what is printed without `--json`")
    state: dict[str, Any] = Field(
        description="live state of the server, with the keys of [monitoring.md](monitoring.md#the-admin-console); at "
        "the end `status`, which is `FINISHED:COMPLETED` if all went well"
    )


# What each command prints.
OUTPUTS: dict[str, type[Part]] = {
    "fedmepd data check": DataCheck,
    "fedmepd doctor": Doctor,
    "fedmepd results": Results,
    "fedmepd evaluate": Evaluation,
    "fedmepd compare show": Comparison,
    "fedmepd watch": WatchLine,
}


def keys(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str]]:
    """Returns every key of an output with its meaning, such as ``sites[].cases.test``; ``NAME`` stands for any name.

    Args:
        model: of an output.
        prefix: of the keys, for objects within others.
    """
    return _keys(model.model_json_schema(), model.model_json_schema(), prefix)


def _keys(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> list[tuple[str, str]]:
    found = []
    for key, value in node.get("properties", {}).items():
        found.append((f"{prefix}{key}", value["description"]))
        below, path = _object(schema, value, f"{prefix}{key}")
        found += _keys(schema, below, f"{path}.") if below else []
    return found


def _object(schema: dict[str, Any], node: dict[str, Any], path: str) -> tuple[dict[str, Any] | None, str]:
    """The object that a value is or holds, and how its keys are reached."""
    for choice in node.get("anyOf", [node]):
        if "$ref" in choice:
            return schema["$defs"][choice["$ref"].rpartition("/")[2]], path
        if choice.get("type") == "array":
            return _object(schema, choice.get("items", {}), f"{path}[]")
        if isinstance(choice.get("additionalProperties"), dict):
            return _object(schema, choice["additionalProperties"], f"{path}.NAME")
    return None, path
