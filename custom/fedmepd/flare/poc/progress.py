"""Lines about a job that runs, of what its server tells in FLARE's admin console."""

from __future__ import annotations

from typing import Any

from fedmepd.modalities import FUSION_SITE


def lines_about(live: dict[str, Any]) -> dict[str, str]:
    """Returns a line for each event of a job that its server tells of in the admin console, by the event's name."""
    lines = {}
    if live.get("phase") == "fusion training" and live.get("round") == 0:
        lines["round 0"] = "round 0: the fusion site trains before the sites begin"
    if live.get("last_round"):
        lines[f"round {live['last_round']['round']}"] = round_line(live["last_round"], live)
    if live.get("phase") == "testing":
        lines["testing"] = "testing the models that were best on validation"
    return lines


def round_line(last: dict[str, Any], live: dict[str, Any]) -> str:
    """Returns one line about a finished round, of what the server says in the admin console.

    Args:
        last: its ``last_round``.
        live: all that it says.
    """
    scores = dict(live.get("mdsc") or {})
    server = scores.pop(FUSION_SITE, None)
    mean = sum(scores.values()) / len(scores) if scores else None
    return (
        f"round {last['round']}/{live['rounds']}: {last['sites']} sites"
        + (f" (without {', '.join(last['missing'])})" if last["missing"] else "")
        + (f", mean loss {last['loss']:.3f}" if last["loss"] is not None else "")
        + (f", mDSC of the sites {mean:.3f}" if mean is not None else "")
        + (f", of the server {server:.3f}" if server is not None else "")
        + (f", personal {live['personal_share']:.1%}" if "personal_share" in live else "")
        + f", {last['seconds']:.1f} s"
    )
