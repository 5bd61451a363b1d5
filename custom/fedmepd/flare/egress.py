"""What a message of a site holds, item by item, as it is handed to FLARE for sending: after the last filter."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from nvflare.apis.dxo import DXO, MetaKey, from_shareable
from nvflare.apis.shareable import ReservedHeaderKey, Shareable

from fedmepd.errors import plain_text
from fedmepd.federation.egress import Item
from fedmepd.federation.wire import scale_of
from fedmepd.flare import translation
from fedmepd.flare.filters import EXPONENTS
from fedmepd.methods.parts.selection import ANCHORS, EXTRA

_LONGEST_VALUE = 400

# The kind of each value of a report; what is not here is told as it is.
_OF_REPORTS = {
    "cases": "counts",
    "steps": "counts",
    "selected_round": "counts",
    "privacy": "counts",
    "withheld": "counts",
    "lacks_weights": "counts",
    "losses": "losses",
    "figures": "losses",
    "train_seconds": "durations",
    "validation_seconds": "durations",
    "seconds": "durations",
    "peak_mib": "memory",
    "validation": "validation_scores",
    "test": "test_scores",
    "each": "case_scores",
    "cross_site": "model_scores",
}
_OF_HEADERS = {translation.REASON: "reason", translation.SPENT: "counts", ReservedHeaderKey.ERROR: "reason"}
# FLARE's own, which every message has: they say which task it answers.
_FLARES = {value for name, value in vars(ReservedHeaderKey).items() if name.isupper()} - {ReservedHeaderKey.ERROR}
_DXO = "DXO"
_OF_META = translation.OF_ANSWERS | {EXPONENTS, MetaKey.FILTER_HISTORY}
# What a job's other components, such as filters, have added.
OTHER = "other"


def leave_out_others(message: Shareable) -> list[str]:
    """Takes everything out of an answer that is neither FLARE's own nor one of this package's values.

    Another component of a job, such as FLARE's reporter of resources, may add headers and values to an answer, which
    tell what the site keeps to itself.

    Args:
        message: the answer, after the last filter; changed.

    Returns:
        the names of what was taken out, as text.
    """
    headers = message.get(ReservedHeaderKey.HEADERS) or {}
    dxo = message.get(_DXO)
    meta = dxo.get("meta") if isinstance(dxo, dict) else None
    out = []
    for place, known in (
        (message, {ReservedHeaderKey.HEADERS, _DXO}),
        (headers, _FLARES | _OF_HEADERS.keys()),
        (meta if isinstance(meta, dict) else {}, _OF_META),
    ):
        for key in [key for key in place if key not in known]:
            out.append(plain_text(key))
            del place[key]
    return out


def items_of(task: str, message: Shareable, cases: Mapping[str, int]) -> list[Item]:
    """Returns everything in a site's answer.

    Args:
        task: that it answers.
        message: the answer, after the last filter.
        cases: numbers of cases behind each kind of item, where known.
    """
    found = list(_headers(message))
    try:
        dxo = from_shareable(message)
    except (ValueError, TypeError):
        dxo = None
    for key, value in message.items():
        if key != ReservedHeaderKey.HEADERS and (dxo is None or key != _DXO):
            found += _plain(OTHER, str(key), value)
    if dxo is None:
        return found
    found += _content(task, dxo)
    found += _meta(task, dxo)
    return [replace(item, cases=cases.get(item.kind)) for item in found]


def live_items(shown: Mapping[str, Any]) -> list[Item]:
    """Returns what the administrator's console is shown of a site, as items."""
    return [item for key, value in shown.items() for item in _plain("live", key, value)]


def _headers(message: Shareable) -> Iterator[Item]:
    for key, value in (message.get(ReservedHeaderKey.HEADERS) or {}).items():
        if key not in _FLARES:
            yield from _plain(_OF_HEADERS.get(key, OTHER), str(key), value)


def _content(task: str, dxo: DXO) -> Iterator[Item]:
    exponents = dxo.get_meta_prop(EXPONENTS) or {}
    for key, value in dxo.data.items() if isinstance(dxo.data, dict) else [("data", dxo.data)]:
        if isinstance(value, torch.Tensor) or hasattr(value, "__array__"):
            yield _tensor(task, str(key), torch.as_tensor(value), exponents.get(key))
        elif task == translation.PREPARE:
            yield from _plain("profile", str(key), value)
        else:
            kind = _OF_REPORTS.get(key, "message")
            yield from _plain(
                "model_scores" if (task, kind) == (translation.TEST_MODEL, "test_scores") else kind, key, value
            )


def _meta(task: str, dxo: DXO) -> Iterator[Item]:
    for key, value in dxo.meta.items():
        if key == translation.REPORT and isinstance(value, dict):
            for name, of_report in value.items():
                yield from _plain(_kind_of(name, of_report), name, of_report)
        elif key == translation.START_UP:
            yield from _plain("durations", key, value)
        elif key != MetaKey.FILTER_HISTORY:
            yield from _plain("message" if key in _OF_META else OTHER, str(key), value)


def _kind_of(name: str, value: Any) -> str:
    """The fusion site's scores are of a test where they have distances."""
    if name == "scores":
        return "test_scores" if isinstance(value, dict) and "hd95_mm" in value else "validation_scores"
    return _OF_REPORTS.get(name, "message")


def _tensor(task: str, name: str, value: torch.Tensor, exponent: Any) -> Item:
    kind = "anchors" if name.startswith(ANCHORS) else "extras" if name.startswith(EXTRA) else "updates"
    norm = float(value.detach().double().norm()) if value.numel() and not value.is_complex() else 0.0
    if isinstance(exponent, int):
        norm *= scale_of(exponent)
    return Item(
        "model" if task == translation.GIVE_MODEL else kind,
        name,
        list(value.shape),
        str(value.dtype).removeprefix("torch."),
        value.numel() * value.element_size(),
        # A number with six digits is enough to compare, and NaN is none in JSON.
        float(f"{norm:.6g}") if math.isfinite(norm) else None,
    )


def _plain(kind: str, name: str, value: Any) -> Iterator[Item]:
    """A plain value; none where it says nothing, such as None in place of what the site keeps to itself."""
    if _says_nothing(value):
        return
    text = json.dumps(value, default=str)
    # What cannot be shown is counted all the same.
    short = json.loads(text) if len(text) <= _LONGEST_VALUE and "NaN" not in text and "Infinity" not in text else None
    yield Item(kind, name, bytes=len(text.encode()), value=short)


def _says_nothing(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return all(map(_says_nothing, value.values() if isinstance(value, dict) else value))
    return value is None
