"""Lines about the progress of a job, for its own log and for whoever asks in FLARE's admin console."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fedmepd.config import FUSION_SITE, Settings
from fedmepd.text_table import counted

_Number = Annotated[int, Field(ge=0, le=10**9, strict=True)]
_Amount = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]


class _Part(BaseModel):
    # What other versions tell beside it is nothing to stumble over.
    model_config = ConfigDict(extra="ignore")


class LastRound(_Part):
    """What a server tells of the round that it finished last."""

    round: _Number
    sites: _Number
    missing: list[str]
    fused: bool
    loss: float | None
    seconds: _Amount
    site_seconds: _Amount
    bytes_up: _Amount
    bytes_down: _Amount


class Live(_Part):
    """What a server tells of a job that runs (:meth:`fedmepd.federation.server.FederationServer.stats`).

    Whoever follows a job reads it from a server of which nobody knows that it is honest, or of the same version.
    """

    phase: str = ""
    round: _Number = 0
    rounds: _Number = 0
    last_round: LastRound | None = None
    mdsc: dict[str, float | None] = {}
    personal_share: float | None = None
    seconds_left: _Amount = 0


def lines_about(live: dict[str, Any]) -> dict[str, str]:
    """Returns a line for each event of a job that its server tells of in the admin console, by the event's name.

    Raises:
        ValidationError: it is not as :class:`Live` says.
    """
    lines, known = {}, Live.model_validate(live)
    if known.phase == "fusion training" and known.round == 0:
        lines["round 0"] = "round 0: the fusion site trains before the sites begin"
    if known.last_round:
        lines[f"round {known.last_round.round}"] = _line(known)
    if known.phase == "testing":
        lines["testing"] = "testing the models that were best on validation"
    return lines


def round_line(live: dict[str, Any]) -> str:
    """Returns one line about the last finished round.

    Args:
        live: what :meth:`fedmepd.federation.server.FederationServer.stats` says.
    """
    return _line(Live.model_validate(live))


def _line(known: Live) -> str:
    last, scores = known.last_round, {owner: score for owner, score in known.mdsc.items() if score is not None}
    fusion = scores.pop(FUSION_SITE, None)
    missing = [*last.missing, *([] if last.fused else ["fusion training"])]
    mean = sum(scores.values()) / len(scores) if scores else None
    return (
        f"round {last.round}/{known.rounds}: {counted(last.sites, 'site')}"
        + (f" (without {', '.join(missing)})" if missing else "")
        + (f", mean loss {last.loss:.3f}" if last.loss is not None else "")
        + (f", mDSC of the sites {mean:.3f}" if mean is not None else "")
        + (f", of the fusion site {fusion:.3f}" if fusion is not None else "")
        + (f", personal {known.personal_share:.1%}" if known.personal_share is not None else "")
        + f", {last.seconds:.1f} s (sites {last.site_seconds:.1f} s)"
        + f", MB up {last.bytes_up / 1e6:.1f} down {last.bytes_down / 1e6:.1f}"
        + (f"; {duration(known.seconds_left)} of rounds left" if known.seconds_left else "")
    )


def plan_lines(settings: Settings, results: Path) -> list[str]:
    """Returns what a job says before its first round: what is going to happen, and where the results will be.

    Args:
        settings: of the job.
        results: folder of its results.
    """
    every = settings.evaluation.every
    if every >= settings.rounds:
        validation = "validation after the last"
    else:
        validation = "validation after every round" if every == 1 else f"validation every {every} rounds"
    rounds = "round 1" if settings.rounds == 1 else f"rounds 1 to {settings.rounds}"
    return [
        f"then: round 0, in which only the fusion site trains; {rounds}, {validation}; a test of "
        "the best models. After round 1, each line says how much time the rounds still need",
        f"results so far, after every round: {results}",
    ]


def duration(seconds: float) -> str:
    """Returns a time in words: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
