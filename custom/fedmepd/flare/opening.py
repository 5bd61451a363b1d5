"""What a server's or a site's process opens when a job's first task needs it: data, state, network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nvflare.apis.fl_context import FLContext

from fedmepd.config import FUSION_SITE
from fedmepd.federation.exchange import SiteProfile
from fedmepd.flare import folders
from fedmepd.flare.translation import Run

if TYPE_CHECKING:
    from fedmepd.data.site import SiteData
    from fedmepd.disclosure import Disclosure
    from fedmepd.federation.fusion_desk import FusionDesk
    from fedmepd.federation.fusion_site import Fusion
    from fedmepd.federation.server import FederationServer
    from fedmepd.federation.site import FederationSite
    from fedmepd.federation.timing import Timing
    from fedmepd.seeds import Secret
    from fedmepd.site_settings import SiteSettings

Log = Callable[[str], None]


def open_server(
    run: Run, folder: Path, fusion: Fusion | None, timing: Timing, log: Log, fl_ctx: FLContext
) -> FederationServer:
    """Opens the federation's server on its state.

    Args:
        run: the job's.
        folder: of the run's state.
        fusion: the fusion site elsewhere; None: here, with the server's own data.
        timing: runs since the job's start.
        log: takes lines about the progress.
        fl_ctx: of the server.
    """
    from fedmepd.federation.server import FederationServer

    server = FederationServer(
        settings=run.settings,
        fusion=fusion or _fusion_here(run, folder, log, fl_ctx),
        folder=folder,
        results_folder=folders.run_folder(fl_ctx) / "results",
        download_folder=folders.download_folder(fl_ctx),
        log=log,
        timing=timing,
    )
    server.restore()
    return server


def _fusion_here(run: Run, folder: Path, log: Log, fl_ctx: FLContext) -> Fusion:
    from fedmepd.data.site import open_copy, open_fusion_data
    from fedmepd.federation.fusion_site import FusionSite
    from fedmepd.training.memory_needs import memory_need

    site_settings = _site_settings(fl_ctx, folders.in_simulator(fl_ctx))
    site_settings.limits.check(run.settings)
    site_settings.limits.check_cache(site_settings.prepared)
    data = open_fusion_data("", run.settings, site_settings, log)
    site_settings.limits.check_memory(memory_need(run.settings, data.modalities))
    place = folder / FUSION_SITE
    return FusionSite(
        run.settings,
        data,
        place,
        site_settings.torch_device(),
        log,
        open_site=partial(open_copy, settings=run.settings, site_settings=site_settings),
        case_scores=site_settings.case_scores,
        disclosure=_disclosure(site_settings, fl_ctx),
        limits=site_settings.limits,
        secret=_secret(site_settings, data, place),
        demanded=site_settings.privacy,
        account=folders.privacy_account(fl_ctx, place),
    )


def _site_settings(fl_ctx: FLContext, on_one_machine: bool) -> SiteSettings:
    from fedmepd.site_settings import SiteSettings

    site_settings = SiteSettings.load(folders.local_folder(fl_ctx))
    return site_settings.for_one_machine() if on_one_machine else site_settings


def _disclosure(site_settings: SiteSettings, fl_ctx: FLContext) -> Disclosure:
    return replace(site_settings.disclosure(), released=folders.released_means(fl_ctx))


def _secret(site_settings: SiteSettings, data: SiteData, folder: Path) -> Secret:
    from fedmepd.federation.kept_secret import kept_secret

    return () if site_settings.is_reproducible(data.source) else kept_secret(folder)


def kept_fusion(run: Run, folder: Path) -> tuple[SiteProfile, bool] | None:
    """Returns what the state of a run says of its fusion site at a hospital; None for a new run.

    Args:
        run: the job's.
        folder: of the run's state.

    Returns:
        the hospital's profile as fusion site, and whether the run is finished.
    """
    from fedmepd.federation.server_state import ServerState

    content = ServerState(folder, run.settings).load()
    if content is None:
        return None
    profile = SiteProfile.from_json(content["fusion"])
    none = dict.fromkeys(profile.cases, 0)
    hospital = replace(profile, name=run.settings.fusion.site, modalities=(), cases=none, fusion=profile.cases)
    return hospital, content["finished"]


def open_site(run: Run, log: Log, fl_ctx: FLContext) -> tuple[FederationSite, FusionDesk | None]:
    """Opens a site on its state, and the fusion site too where the job has it here.

    Args:
        run: the job's.
        log: takes lines about the progress.
        fl_ctx: of the site.

    Raises:
        SettingsError: the job asks for more than the site's limits.
        DataError: the site's cases cannot be used.
    """
    from fedmepd.data.site import open_fusion_data, open_site_data
    from fedmepd.federation.fusion_desk import FusionDesk
    from fedmepd.federation.fusion_site import FusionSite
    from fedmepd.federation.site import FederationSite
    from fedmepd.training.memory_needs import memory_need

    name, settings = fl_ctx.get_identity_name(), run.settings
    site_settings = _site_settings(fl_ctx, folders.is_simulated_site(fl_ctx))
    site_settings.limits.check(settings)
    folder = folders.site_folder(fl_ctx, settings, run.identity)
    if not folder.exists():
        # A run that is there already is refused more rounds, and still tested.
        site_settings.limits.check_disk(*folders.written(fl_ctx))
    site_settings.limits.check_cache(site_settings.prepared)
    device = site_settings.torch_device()
    folders.show_state(fl_ctx, settings, folder)
    data = open_site_data(name, settings, site_settings, log)
    site_settings.limits.check_memory(memory_need(settings, data.modalities))
    decided = {
        "disclosure": _disclosure(site_settings, fl_ctx),
        "limits": site_settings.limits,
        "demanded": site_settings.privacy,
    }
    site = FederationSite(
        name=name,
        settings=settings,
        data=data,
        folder=folder,
        device=device,
        log=log,
        cross_site=site_settings.cross_site,
        case_scores=site_settings.case_scores,
        secret=_secret(site_settings, data, folder),
        account=folders.privacy_account(fl_ctx, folder),
        **decided,
    )
    if settings.fusion.site != name:
        return site, None
    data = open_fusion_data(name, settings, site_settings, log)
    site_settings.limits.check_memory(memory_need(settings, data.modalities))
    place = folder / FUSION_SITE
    fusion = FusionSite(
        settings,
        data,
        place,
        device,
        log,
        case_scores=site_settings.case_scores,
        secret=_secret(site_settings, data, place),
        account=folders.privacy_account(fl_ctx, place),
        **decided,
    )
    return site, FusionDesk(fusion, half_precision=settings.aggregation.wire_precision == "float16")
