"""The whole federation in one process, without FLARE: for tests, and to try settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedmepd.closest import one_of
from fedmepd.config import FUSION_SITE, Settings
from fedmepd.data.site import SiteData, open_copy, open_fusion_data, open_site_data
from fedmepd.errors import FedMEPDError, UpdateRefused
from fedmepd.federation.cross_site import SERVER
from fedmepd.federation.exchange import FusionReply, FusionTask, Payload, Update
from fedmepd.federation.fusion_desk import FusionDesk
from fedmepd.federation.fusion_elsewhere import FusionElsewhere
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.kept_secret import kept_secret
from fedmepd.federation.server import FederationServer
from fedmepd.federation.site import FederationSite
from fedmepd.federation.wire import wire_bytes
from fedmepd.privacy.participant import BudgetSpent
from fedmepd.seeds import Secret
from fedmepd.site_settings import SiteSettings


def run_in_process(
    settings: Settings,
    site_settings: SiteSettings,
    folder: Path,
    sites: Sequence[str],
    log: Callable[[str], None] = lambda line: None,
    watch: Callable[[int, dict[str, float]], None] = lambda round_number, figures: None,
    on_the_way: Callable[[str, Update], Update] = lambda site, update: update,
    on_the_way_down: Callable[[str, Payload], Payload] = lambda site, payload: payload,
    results_folder: Path | None = None,
) -> dict[str, Any]:
    """Trains and tests a federation, one site after the other.

    Args:
        settings: of the job.
        site_settings: of this machine; all sites read from its data folder.
        folder: a sub-folder each for the server and the sites, and ``results``.
        sites: the sites' names.
        log: takes lines about the progress.
        watch: called with every round's figures.
        on_the_way: what becomes of a site's update before it reaches the server.
        on_the_way_down: what becomes of the server's payload before it reaches a site.
        results_folder: for the results, in place of ``results``.

    Returns:
        the results.
    """
    site_settings = site_settings.for_one_machine()
    site_settings.limits.check(settings)
    folder = Path(folder)
    device = site_settings.torch_device()

    def never() -> bool:
        return False

    decided = {
        "disclosure": site_settings.disclosure(),
        "limits": site_settings.limits,
        "demanded": site_settings.privacy,
    }

    def secret(data: SiteData, place: Path) -> Secret:
        return () if site_settings.is_reproducible(data.source) else kept_secret(place)

    opened = {name: open_site_data(name, settings, site_settings) for name in sites}
    members = {
        name: FederationSite(
            name,
            settings,
            data,
            folder / name,
            device,
            log,
            site_settings.cross_site,
            site_settings.case_scores,
            secret=secret(data, folder / name),
            # All of them share this process.
            peak=lambda: None,
            **decided,
        )
        for name, data in opened.items()
    }
    half = settings.aggregation.wire_precision == "float16"
    elsewhere = settings.fusion.site
    if elsewhere and elsewhere not in members:
        raise FedMEPDError(f"fusion.site = {elsewhere!r}: {one_of(elsewhere, sites)}")
    place = folder / (elsewhere or "server") / FUSION_SITE
    data = open_fusion_data(elsewhere, settings, site_settings)
    open_site = partial(open_copy, settings=settings, site_settings=site_settings)
    fusion = FusionSite(
        settings,
        data,
        place,
        device,
        log,
        open_site,
        site_settings.case_scores,
        secret=secret(data, place),
        **decided,
    )
    profiles = {name: site.profile() for name, site in members.items() if name != elsewhere}
    if elsewhere:
        desk = FusionDesk(fusion, half_precision=half)

        def post(task: FusionTask, abort: Callable[[], bool]) -> FusionReply:
            reply = desk.do(task, abort)
            reply.wire_bytes = wire_bytes(reply.tensors, half), wire_bytes(task.tensors, half)
            return reply

        profiles[elsewhere] = members[elsewhere].profile(fusion.data.counts())
        fusion = FusionElsewhere(settings, profiles[elsewhere], post)
    server = FederationServer(settings, fusion, folder / "server", results_folder or folder / "results", log)
    server.restore()
    # A hospital may be the fusion site alone.
    members = {name: site for name, site in members.items() if profiles[name].takes_part()}
    for name in members:
        server.register(profiles[name])
    server.start(never)
    while server.round < settings.rounds and not server.training_over:
        server.begin_round()
        for name, site in members.items():
            if not server.trains(name):
                continue
            payload = on_the_way_down(name, server.payload(name))
            try:
                update = on_the_way(name, site.train(payload, never))
            except BudgetSpent as error:
                server.end_training(name, error.public, error.spent)
                continue
            try:
                server.accept(name, update, (wire_bytes(update.tensors, half), wire_bytes(payload.tensors, half)))
            except UpdateRefused as error:
                log(str(error))
        figures = server.finish_round(never)
        if server.training_over and not figures:
            break
        log(f"round {server.round}/{settings.rounds}")
        watch(server.round, figures)
    for name, site in members.items():
        server.accept_test(name, site.test(server.test_payload(name), never))
    if settings.evaluation.cross_site and not server.finished:
        _test_across_sites(server, members, settings, never)
    return server.finish(never)


def _test_across_sites(
    server: FederationServer, members: dict[str, FederationSite], settings: Settings, abort: Callable[[], bool]
) -> None:
    matrix = server.begin_cross_site()
    for model in matrix.models():
        copy = server.global_copy() if model == SERVER else members[model].give_model()
        for name in matrix.sites_to_ask(model):
            matrix.accept(model, name, members[name].test_model(copy, abort))
        server.test_model(model, copy, abort)
