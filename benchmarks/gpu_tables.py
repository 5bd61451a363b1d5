"""The tables of :mod:`benchmarks.gpu`: one for each kind of part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.measure import Spread, table

_TITLES = {
    "agreement": "One step of the product, against the processor",
    "step": "A training step of batch 1; ratios: straightforward / this way",
    "loading": "Epochs over cases of real size: how long steps wait for their batches",
    "segmenting": "A case (240 x 240 x 155 voxels for windows of 80); ratios: straightforward in float32 / this side",
}


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Returns all rows as Markdown, under a title for each kind of part that has some."""
    found = []
    for part, title in _TITLES.items():
        of_part = [row for row in rows if row["part"] == part]
        if of_part:
            headers, cells = _OF_PART[part](of_part)
            found.append(f"{title}:\n\n{table(headers, cells)}")
    return "\n\n".join(found)


def _agreement(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    keys = {"loss": "loss", "probability": "probabilities", "norm": "gradient: norm", "vector": "vector"}
    cells = [
        [
            row["arithmetic"],
            *(_number(row.get(key), ".1e") for key in keys),
            _number(row.get("cosine"), ".4f"),
            _why(row),
        ]
        for row in rows
    ]
    return ["arithmetic", *keys.values(), "cosine", "note"], cells


def _step(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    headers = ["way", "modalities", "crop", "precision", "ms", "peak MiB", "ratio", "to float32", "of memory", "note"]
    cells = [
        [row["way"], " ".join(row["modalities"]), str(row["crop"]), row["precision"], *_time_and_memory(row, 1000, 1)]
        + [_number(row.get("ratio_memory"), ".2f"), _why(row)]
        for row in rows
    ]
    return headers, cells


def _segmenting(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    headers = ["side", "modalities", "precision", "s", "peak MiB", "ratio", "lowest Dice", "note"]
    cells = []
    for row in rows:
        seconds, memory, ratio, _ = _time_and_memory(row, 1, 2)
        dice = _number(row.get("lowest_dice"), ".4f")
        cells.append(
            [row["side"], " ".join(row["modalities"]), row["precision"], seconds, memory, ratio, dice, _why(row)]
        )
    return headers, cells


def _loading(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    headers = ["epoch", "first batch, ms", "later batches, ms", "share of the time", "epoch, s", "note"]
    cells = []
    for row in rows:
        if _why(row):
            cells.append(["", "", "", "", "", _why(row)])
        for name in ("product", "straightforward", "steps_alone") if not _why(row) else ():
            found = row[name]
            waits = [_spread(found[key], 1000, 1) for key in ("first_wait", "later_wait")]
            share = f"{found['waiting_share']:.1%}"
            cells.append([name.replace("_", " "), *waits, share, _spread(found["epoch_seconds"], 1, 2), ""])
    return headers, cells


_OF_PART = {"agreement": _agreement, "step": _step, "loading": _loading, "segmenting": _segmenting}


def _time_and_memory(row: dict[str, Any], factor: float, digits: int) -> list[str]:
    seconds = _spread(row["seconds"], factor, digits) if "seconds" in row else ""
    ratios = (_number(row.get(key), ".2f") for key in ("ratio", "ratio_float32"))
    return [seconds, _number(row.get("peak_mib"), ".0f"), *ratios]


def _why(row: dict[str, Any]) -> str:
    """Why there is nothing, or what else is to be said."""
    if "failed" in row:
        return row["failed"].replace("|", "/")
    if "left_out" in row:
        return f"left out: {row['left_out']}"
    return f"{row['graph_breaks']} graph breaks" if row.get("graph_breaks") else ""


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _spread(values: dict[str, float], factor: float, digits: int) -> str:
    return Spread(**{key: factor * value for key, value in values.items()}).text(digits)
