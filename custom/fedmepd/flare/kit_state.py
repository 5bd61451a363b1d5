"""All that a server or site has decided for itself, in words: what ``fedmepd kit`` shows."""

from __future__ import annotations

from collections.abc import Iterator

from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST

from fedmepd.flare.kit_rights import EVERYBODY
from fedmepd.flare.kits import CODE, FILES, KitSettings
from fedmepd.site_settings import FILE_NAME, SiteSettings, has_home

# Where FLARE keeps a server's jobs until somebody names another folder.
_TEMPORARY = "/tmp/nvflare"


def describe(kit: KitSettings, machine: SiteSettings) -> Iterator[tuple[str, str]]:
    """Yields what holds in a kit from its next start on: what it is about, and how it is.

    Args:
        kit: of the server or of a site.
        machine: what its ``fedmepd.json`` says, environment variables included.

    Raises:
        SettingsError: a file of the kit cannot be read, or a value in it is of the wrong kind.
    """
    yield "jobs with code", _whose_code(kit.rights(*CODE))
    yield "jobs without code", f"may use {_classes(kit)}"
    if kit.is_server:
        yield "jobs and results", _folders(kit)
    else:
        yield "withheld encoders", _withheld(kit)
        yield "log", "its errors go to the server" if kit.sends_log() else "stays at this site"
        yield "files of the kit", _whose_files(kit.rights(*FILES))
    yield "data", _data(machine)
    yield "device", machine.device
    yield "cache", _cache(machine)
    yield "limits for a job", machine.limits.describe()
    yield "leaving", machine.disclosure().describe()
    others = {"case_scores": machine.case_scores, "cross_site": machine.cross_site}
    demanded = machine.privacy
    others |= {"reproducible": machine.reproducible, "privacy.epsilon": demanded.epsilon or "none"}
    if demanded.epsilon is not None:
        others |= {"privacy.per_run": demanded.per_run or "none", "privacy.delta": demanded.delta}
    others["privacy.scores"] = demanded.scores
    yield "other settings", ", ".join(f"{name} {value}" for name, value in others.items())


def _whose_code(rights: dict[str, str]) -> str:
    return f"accepted from {_people(rights)}" if rights else "refused, no matter who submits them"


def _whose_files(rights: dict[str, str]) -> str:
    if not rights:
        return "shown to nobody"
    if all(words == "o:site" for words in rights.values()):
        return "shown to the site's own organisation alone"
    return f"shown to {_people(rights)}"


def _people(rights: dict[str, str]) -> str:
    return ", ".join(role if words == EVERYBODY else f"{role} ({words})" for role, words in rights.items())


def _classes(kit: KitSettings) -> str:
    names = kit.allowed_classes()
    ours = [name for name in names if name in kit.own_classes]
    flare = [name for name in names if name in DEFAULT_CLASS_ALLOW_LIST]
    others = [name for name in names if name not in (*ours, *flare)]
    said = f"these classes: {len(ours)} named by jobs of this package, and {len(flare)} in FLARE's own list"
    return said + (f"; besides, as somebody has added: {', '.join(others)}" if others else "")


def _folders(kit: KitSettings) -> str:
    jobs, snapshots = kit.jobs_folders()
    if jobs is None:
        return "local/resources.json names no folder as FLARE does"
    notes = f", what FLARE notes of running jobs in {snapshots}" if snapshots else ""
    lost = "; a restart of the machine may empty them: choose another folder with --jobs FOLDER"
    temporary = any(folder and folder.startswith(_TEMPORARY) for folder in (jobs, snapshots))
    return f"kept in {jobs}{notes}{lost if temporary else ''}"


def _data(machine: SiteSettings) -> str:
    if why := machine.why_no_data():
        return f"{why}: `fedmepd data init FOLDER --kit KIT` names one"
    return str(machine.data or "no folder is named")


def _cache(machine: SiteSettings) -> str:
    if machine.cache is None:
        return f"no place for it, since this user has no home folder: name one as cache in local/{FILE_NAME}"
    is_default = has_home() and machine.cache == SiteSettings.model_fields["cache"].default.expanduser()
    return f"{machine.cache}{', in the home folder of whoever starts the kit' if is_default else ''}"


def _withheld(kit: KitSettings) -> str:
    modalities = kit.withheld()
    if modalities is None:
        return "as local/privacy.json says, which `fedmepd kit` has not written"
    return ", ".join(modalities) or "none"
