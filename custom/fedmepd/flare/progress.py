"""Lines about the progress of a job, for its own log and for whoever asks in FLARE's admin console."""

from __future__ import annotations

from typing import Any

from fedmepd.config import FUSION_SITE


def lines_about(live: dict[str, Any]) -> dict[str, str]:
    """Returns a line for each event of a job that its server tells of in the admin console, by the event's name."""
    lines = {}
    if live.get("phase") == "fusion training" and live.get("round") == 0:
        lines["round 0"] = "round 0: the fusion site trains before the sites begin"
    if live.get("last_round"):
        lines[f"round {live['last_round']['round']}"] = round_line(live)
    if live.get("phase") == "testing":
        lines["testing"] = "testing the models that were best on validation"
    return lines


def round_line(live: dict[str, Any]) -> str:
    """Returns one line about the last finished round.

    Args:
        live: what :meth:`fedmepd.federation.server.FederationServer.stats` says.
    """
    last = live["last_round"]
    scores = dict(live.get("mdsc") or {})
    fusion = scores.pop(FUSION_SITE, None)
    missing = [*last["missing"], *([] if last["fused"] else ["fusion training"])]
    mean = sum(scores.values()) / len(scores) if scores else None
    return (
        f"round {last['round']}/{live['rounds']}: {last['sites']} sites"
        + (f" (without {', '.join(missing)})" if missing else "")
        + (f", mean loss {last['loss']:.3f}" if last["loss"] is not None else "")
        + (f", mDSC of the sites {mean:.3f}" if mean is not None else "")
        + (f", of the fusion site {fusion:.3f}" if fusion is not None else "")
        + (f", personal {live['personal_share']:.1%}" if "personal_share" in live else "")
        + f", {last['seconds']:.1f} s (sites {last['site_seconds']:.1f} s)"
        + f", MB up {last['bytes_up'] / 1e6:.1f} down {last['bytes_down'] / 1e6:.1f}"
    )
