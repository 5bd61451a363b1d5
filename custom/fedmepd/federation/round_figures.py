"""What a finished round leaves behind: entries in the records, figures for TensorBoard, a summary."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from statistics import fmean
from typing import Any

from fedmepd.config import FUSION_SITE
from fedmepd.federation.charts import FEDERATION, LAYERS, MEAN
from fedmepd.federation.cross_site import SERVER
from fedmepd.federation.open_round import OpenRound
from fedmepd.federation.records import Records
from fedmepd.federation.timing import SITE_PHASES, RoundSeconds
from fedmepd.methods.method import AtServer, Fused
from fedmepd.methods.parts.selection import DECODER

Figures = dict[str, float]


def note_fusion(records: Records, round_number: int, fused: Fused | None, wire_bytes: tuple[int, int]) -> Figures:
    """Notes the fusion site's training; returns its figures.

    Args:
        records: of the run.
        round_number: the round.
        fused: what the fusion site returned; None if it was away.
        wire_bytes: of tensors from and to it.
    """
    if fused is None:
        return {}
    records.train(FUSION_SITE, round_number, fused, wire_bytes)
    figures = {f"{SERVER}/loss_{name}": value for name, value in fused.losses.items()}
    figures |= {f"{SERVER}/{name}": value for name, value in fused.figures.items()}
    up, down = wire_bytes
    return figures | ({f"{SERVER}/bytes_up": float(up), f"{SERVER}/bytes_down": float(down)} if up or down else {})


def note_sites(records: Records, open_round: OpenRound, sites: Iterable[str]) -> Figures:
    """Notes for every site what it did in the round, or why it did not take part; returns the figures."""
    figures = {f"{FEDERATION}/sites": float(len(open_round.reports))}
    for site, report in sorted(open_round.reports.items()):
        wire_bytes = open_round.wire_bytes[site]
        records.take(site, open_round.number, report, open_round.sizes.get(site), wire_bytes)
        figures |= {f"{site}/loss_{name}": value for name, value in report["losses"].items()}
        figures |= {f"{site}/{name}": value for name, value in report["figures"].items()}
        figures |= {
            **({} if report["seconds"] is None else {f"{site}/seconds": report["seconds"]}),
            f"{site}/bytes_up": float(wire_bytes[0]),
            f"{site}/bytes_down": float(wire_bytes[1]),
        }
        if report["validation"]:
            figures |= score_figures(site, report["validation"])
    for site in sorted(set(sites) - set(open_round.reports)):
        records.miss(site, open_round.number, open_round.why_absent(site))
    return figures | _means(figures, open_round.reports)


def _means(figures: Figures, sites: Collection[str]) -> Figures:
    """The mean of every figure over the sites that have it."""
    of_name: dict[str, list[float]] = {}
    for figure, value in figures.items():
        owner, _, name = figure.partition("/")
        if owner in sites:
            of_name.setdefault(name, []).append(value)
    return {f"{MEAN}/{name}": fmean(values) for name, values in of_name.items()}


def note_method(records: Records, method: AtServer) -> Figures:
    """Notes the figures that only this method has, after the participants' own; returns them."""
    figures: Figures = {}
    for owner, values in method.figures().items():
        records.add(owner, values)
        label = SERVER if owner == FUSION_SITE else owner
        figures |= {f"{label}/{name}": value for name, value in values.items()}
    return figures


def note_filters(records: Records, open_round: OpenRound, method: AtServer) -> Figures:
    """Notes how many filters are personal to each site; returns the figures, none where no filter ever is."""
    layers = method.layers()
    shares: dict[str, list[float]] = {layer: [] for layer in layers}
    figures: Figures = {}
    for site in everybody(records) if layers else ():
        personal = method.personal_filters(site)
        records.personal(site, open_round.number, personal)
        for layer, count in personal.items():
            shares[layer].append(count / layers[layer])
        if site in open_round.reports:
            figures[f"{site}/personal_share"] = personal_share(method, site)
    figures |= {f"{LAYERS}/{layer.removeprefix(DECODER)}": fmean(of) for layer, of in shares.items() if of}
    mean = mean_personal_share(records, method)
    return figures if mean is None else figures | {f"{MEAN}/personal_share": mean}


def everybody(records: Records) -> list[str]:
    """All sites that have ever taken part in the run."""
    return [name for name in records if name != FUSION_SITE]


def personal_share(method: AtServer, site: str) -> float | None:
    """Share of a site's filters that are personal, 0 to 1; None where the method has none."""
    layers = method.layers()
    return sum(method.personal_filters(site).values()) / sum(layers.values()) if layers else None


def mean_personal_share(records: Records, method: AtServer) -> float | None:
    """Its mean over all sites; None where the method has none, or there is no site yet."""
    sites = everybody(records)
    return fmean(personal_share(method, site) for site in sites) if sites and method.layers() else None


def score_figures(owner: str, validation: dict[str, Any]) -> Figures:
    """The figures of a validation."""
    figures = {f"{owner}/validation_dice_{region}": value for region, value in validation["dice"].items()}
    return figures | {f"{owner}/validation_mdsc": validation["mdsc"]}


def summary(open_round: OpenRound, fused: bool, sites: Iterable[str], seconds: RoundSeconds) -> dict[str, Any]:
    """What progress lines and the admin console say of a round; ``fused``: no fusion training was missed."""
    losses = {site: report["losses"].get("total") for site, report in sorted(open_round.reports.items())}
    known = [loss for loss in losses.values() if loss is not None]
    return {
        "round": open_round.number,
        "sites": len(open_round.reports),
        "missing": sorted(set(sites) - set(open_round.reports)),
        "fused": fused,
        "loss": fmean(known) if known else None,
        "loss_of_sites": losses,
        "seconds": seconds.total,
        "site_seconds": sum(seconds.phases[phase] for phase in SITE_PHASES),
        "bytes_up": sum(up for up, _ in open_round.wire_bytes.values()),
        "bytes_down": sum(down for _, down in open_round.wire_bytes.values()),
    }
