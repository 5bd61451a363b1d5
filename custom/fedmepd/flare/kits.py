"""What a server or site decides for itself, written into the ``local`` folder of its FLARE kit.

FLARE reads ``resources.json`` and ``authorization.json`` there in place of the ``.default`` files that provisioning
wrote, not in addition to them. So each is made from what the kit already has, and nothing of it is lost.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import AdminCommandNames
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.app_common.widgets.component_path_authorizer import ALLOW_ALL, ClassListEnforcementMode
from nvflare.fuel.sec.authz import parse_policy_config
from nvflare.security.security import COMMAND_CATEGORIES
from nvflare.tool.kit.kit_config import (
    StartupKitConfigError,
    get_startup_kit_entries,
    load_cli_config,
    resolve_startup_kit_dir_by_id,
)

from fedmepd.closest import did_you_mean, like_path
from fedmepd.errors import SettingsError
from fedmepd.flare.kit_files import AUTHORIZATION, PRIVACY, REMEDY, RESOURCES, read_checked
from fedmepd.flare.kit_rights import ALL_RIGHTS, EVERYBODY, for_everybody, in_flares_spelling, whose
from fedmepd.flare.tracking import TRACKERS
from fedmepd.flare.withholding import policy, withheld
from fedmepd.storage import has_file, write_json
from fedmepd.tasks.task import Task

SERVER, SITE, ADMIN = "server", "site", "admin"
_CONFIGURATIONS = {SERVER: "fed_server.json", SITE: "fed_client.json", ADMIN: "fed_admin.json"}

# What our jobs are built of besides the classes that FLARE allows anyway. FLARE calls what a job names, with the job's
# arguments. So these are single classes, each made for that, and never a package: it holds functions, too.
_OF_BOTH = (
    "fedmepd.flare.filters.FromWirePrecision",
    "fedmepd.flare.filters.ToWirePrecision",
)
ALLOWED = {
    SERVER: (
        "fedmepd.flare.controller.FedMEPDController",
        "fedmepd.flare.tensorboard.SiteRunsReceiver",
        *TRACKERS.values(),
        *_OF_BOTH,
    ),
    SITE: ("fedmepd.flare.executor.FedMEPDExecutor", *_OF_BOTH),
}
# Classes of FLARE's: one imports any module that it is told, the other adds durations and memory to a site's answers,
# and measures them as often as a job says.
_NOT_AT_A_SITE = (
    "nvflare.app_common.widgets.decomposer_reg.DecomposerRegister",
    "nvflare.app_common.widgets.job_stats_reporter.JobStatsReporter",
)


_ALLOWED, _MODE = "class_allow_list", "class_list_enforcement_mode"


def _is_too_much(name: str) -> bool:
    """Whether a job without code could start any program, or ask what a site keeps, by what a name in the list allows.

    Older lists did.
    """
    if name == ALLOW_ALL:
        return True
    if name.startswith("fedmepd."):
        return not any(name in names for names in ALLOWED.values())
    # Python's own functions start programs, and no component is among them.
    if name.partition(".")[0] in sys.stdlib_module_names:
        return True
    # FLARE takes every name for that of a package, too.
    return any(f"{one}.".startswith(f"{name.rstrip('.')}.") for one in _NOT_AT_A_SITE)


ADMISSION = {"id": "fedmepd_site_admission", "path": "fedmepd.flare.admission.SiteAdmission", "args": {}}

_BYOC, _SHELL = "byoc", "shell_commands"
CODE, FILES = (_BYOC,), tuple(command for command, category in COMMAND_CATEGORIES.items() if category == _SHELL)
"""The rights to bring code, and to read files of a kit at FLARE's console."""
_NEVER = "none"
_COMMANDS = {value for name, value in vars(AdminCommandNames).items() if not name.startswith("_")}
# A command without a category is a right of its own; two more are asked for when a job is deployed.
_RIGHTS = sorted(
    {_BYOC, "server-predeployed-flwr"} | set(COMMAND_CATEGORIES.values()) | (_COMMANDS - set(COMMAND_CATEGORIES))
)


def kind_of(folder: Path) -> str:
    """Returns whose kit a folder is: :data:`SERVER`, :data:`SITE` or :data:`ADMIN`.

    Raises:
        SettingsError: it is none.
    """
    for kind, file in _CONFIGURATIONS.items():
        if (Path(folder) / "startup" / file).is_file():
            return kind
    raise SettingsError(
        f"{folder} is no FLARE kit: expected a folder with startup/{' or startup/'.join(_CONFIGURATIONS.values())}, as "
        f"`nvflare provision` and `nvflare package` make it{like_path(folder)}"
    )


def admin_kit(name: str) -> Path:
    """Returns the folder of an admin's kit.

    Args:
        name: that folder, or the name that FLARE has noted it under (`nvflare config list`).

    Raises:
        SettingsError: there is no such kit, or it is another participant's.
    """
    if Path(name).is_dir():
        if kind_of(Path(name)) != ADMIN:
            raise SettingsError(f"{name} is the kit of a {kind_of(Path(name))}: expected that of an admin")
        return Path(name).absolute()
    try:
        return Path(resolve_startup_kit_dir_by_id(name))
    except StartupKitConfigError as error:
        raise SettingsError(
            f"--kit {name}: neither a folder nor a name that FLARE has noted ({error}): `fedmepd join FOLDER` notes it"
            f"{did_you_mean(name, get_startup_kit_entries(load_cli_config()))}"
        ) from error


class KitSettings:
    """What a server or site decides for itself, in its kit.

    Args:
        folder: with the sub-folders ``startup`` and ``local``.

    Raises:
        SettingsError: it is something else, or an admin's kit.
    """

    def __init__(self, folder: Path):
        self.local = Path(folder) / "local"
        startup = Path(folder) / "startup"
        self.is_server = (startup / "fed_server.json").is_file()
        if not self.local.is_dir() or not (self.is_server or (startup / "fed_client.json").is_file()):
            raise SettingsError(
                f"{folder} is no kit of a FLARE server or site: expected a folder with local and with startup/"
                "fed_client.json or startup/fed_server.json, as `nvflare provision` and `nvflare package` make it"
                f"{like_path(folder)}"
            )

    def require_readable(self) -> None:
        """Reads the files that decide something, before one of them is changed.

        Raises:
            SettingsError: one cannot be read, or a value in it is of the wrong kind; it names file and key.
        """
        self.rights()
        for name in (RESOURCES, PRIVACY):
            # Without these FLARE has rules of its own.
            if self._is_there(name):
                self._read(name)

    def set_up(self) -> Path:
        """Lets jobs that carry no code use the classes that jobs are made of; returns the file that says so.

        A site's logs, which may name cases and paths, stay there too: FLARE by default sends its errors to the server.
        The server lets sites into jobs that run already (see :mod:`fedmepd.flare.admission`).
        """
        default = f"{RESOURCES}.default"
        # What somebody has removed is FLARE's: without its components a kit does not work.
        provisioned = read_checked(self.local / default, RESOURCES) if self._has(default) else {}
        resources = provisioned | self._read(RESOURCES)
        allowed = [name for name in _allowed(resources) if not _is_too_much(name)]
        resources[_ALLOWED] = [*allowed, *(name for name in self.own_classes if name not in allowed)]
        if _MODE in resources:
            resources[_MODE] = ClassListEnforcementMode.ENFORCE.value
        if self.is_server:
            components = resources.setdefault("components", [])
            components[:] = [one for one in components if one.get("id") != ADMISSION["id"]] + [ADMISSION]
        else:
            resources["allow_log_streaming"] = False
        return self._write(RESOURCES, resources)

    def too_much(self) -> list[str]:
        """Returns the allowed names with which a job could do anything here, and the setting that allows all names."""
        if not self._is_there(RESOURCES):
            return []
        resources = self._read(RESOURCES)
        lax = [f"every class ({_MODE} is warn)"] if resources.get(_MODE) == ClassListEnforcementMode.WARN.value else []
        return [*(name for name in _allowed(resources) if _is_too_much(name)), *lax]

    @property
    def own_classes(self) -> tuple[str, ...]:
        """The classes that jobs of this package name here."""
        return ALLOWED[SERVER if self.is_server else SITE]

    def allowed_classes(self) -> list[str]:
        """Returns the names that a job without code may use."""
        return _allowed(self._read(RESOURCES))

    def sends_log(self) -> bool:
        """Whether errors in a site's log go to the server."""
        return not self.is_server and self._read(RESOURCES).get("allow_log_streaming", True)

    def rights(self, *names: str) -> dict[str, str]:
        """Returns whose people have one of some rights here, by role, in words; without those who have none.

        Args:
            names: of the rights, such as those of :data:`CODE` and :data:`FILES`.

        Raises:
            SettingsError: FLARE cannot use the file.
        """
        policy_, error = parse_policy_config(self._read(AUTHORIZATION), COMMAND_CATEGORIES)
        if error:
            raise SettingsError(f"{self._source(AUTHORIZATION)}: {error}: {REMEDY}")
        found = {}
        for role in policy_.role_rights:
            if some := dict.fromkeys(filter(None, (whose(policy_, role, name) for name in names))):
                found[role] = EVERYBODY if EVERYBODY in some else " or ".join(some)
        return found

    def withheld(self) -> tuple[str, ...] | None:
        """Returns the modalities whose encoders never leave the site; None: somebody else wrote the policy."""
        return withheld(self._read(PRIVACY)) if self._has(PRIVACY) else ()

    def refuse_code(self) -> Path:
        """Refuses jobs that carry code, whoever submits them; returns the file that says so."""
        return self._permit(lambda rights: rights | {_BYOC: _NEVER})

    def hide_files(self) -> Path:
        """Shows files of a site's kit to the site's own organisation alone; returns the file that says so.

        Logs are among them, and where the data are. FLARE's console by default shows them to a project admin, too.
        """
        # The right to a single command comes before that to all of its kind.
        names = (_SHELL, *FILES)
        return self._permit(
            lambda rights: rights | {name: "o:site" for name in names if for_everybody(rights.get(name, _NEVER))}
        )

    def _permit(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
        content = self._read(AUTHORIZATION)
        permissions = content["permissions"]
        for role, rights in permissions.items():
            # One word for all rights ("any") leaves no room for an exception, nor does one that stands under a star.
            by_name = rights if isinstance(rights, dict) else {ALL_RIGHTS: rights}
            by_name = {in_flares_spelling(name): words for name, words in by_name.items()}
            permissions[role] = change(
                dict.fromkeys(_RIGHTS, by_name[ALL_RIGHTS]) if ALL_RIGHTS in by_name else by_name
            )
        return self._write(AUTHORIZATION, content)

    def withhold(self, task: Task, modalities: Iterable[str]) -> Path:
        """Keeps what the site learns in these modalities' encoders from leaving it; returns the file that says so.

        FLARE applies the filter before any of the job's, and no job can switch it off.

        Raises:
            SettingsError: this is the server's kit, the site has a policy that somebody else wrote, or withholds what
                is not named.
            FedMEPDError: a modality is unknown.
        """
        if self.is_server:
            raise SettingsError("--withhold is for the kit of a site: the server keeps its own encoders anyway")
        wanted = policy(chosen := task.subset(modalities))
        path = self.local / PRIVACY
        already = self.withheld()
        if already is None:
            raise SettingsError(
                f"{path} holds another policy: move it away, or add to its filters by hand: "
                + json.dumps(wanted["scopes"][0]["task_result_filters"])
            )
        if set(already) - set(chosen):
            both = " ".join(dict.fromkeys((*already, *chosen)))
            raise SettingsError(
                f"{path} withholds {', '.join(already)} already: name all that shall stay (--withhold {both}), or "
                "delete the file first, so that the others leave the site again"
            )
        return self._write(PRIVACY, wanted)

    def keep_jobs(self, folder: Path) -> Path:
        """Lets the server keep jobs and their results in ``folder``; returns the file that says so.

        Raises:
            SettingsError: this is the kit of a site, or its resources are not made as FLARE makes them.
        """
        if not self.is_server:
            raise SettingsError("--jobs is for the server's kit: a site keeps its jobs in its kit")
        folder = Path(folder).expanduser().absolute()
        resources = self._read(RESOURCES)
        try:
            [manager] = _job_managers(resources)
            manager["args"]["uri_root"] = str(folder / "jobs")
            _snapshots(resources)["root_dir"] = str(folder / "snapshots")
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(
                f"{self._source(RESOURCES)}: expected a component job_manager and a snapshot_persistor, as FLARE 2.9 "
                "writes them"
            ) from error
        return self._write(RESOURCES, resources)

    def jobs_folders(self) -> tuple[str | None, str | None]:
        """Returns the folders in which the server keeps jobs with their results, and FLARE's notes of running jobs.

        None: its resources do not say so.
        """
        resources = self._read(RESOURCES)
        managers = _job_managers(resources)
        jobs = [manager["args"]["uri_root"] for manager in managers if "uri_root" in (manager.get("args") or {})]
        try:
            snapshots = str(_snapshots(resources)["root_dir"])
        except (KeyError, TypeError):
            snapshots = None
        return next(iter(jobs), None), snapshots

    def _source(self, name: str) -> Path:
        return self.local / (name if self._has(name) else f"{name}.default")

    def _is_there(self, name: str) -> bool:
        return self._has(self._source(name).name)

    def _has(self, name: str) -> bool:
        return has_file(self.local / name, SettingsError, f": {REMEDY}")

    def _read(self, name: str) -> dict[str, Any]:
        return read_checked(self._source(name), name)

    def _write(self, name: str, content: dict[str, Any]) -> Path:
        write_json(self.local / name, content)
        return self.local / name


def _allowed(resources: dict[str, Any]) -> list[str]:
    return resources.get(_ALLOWED, list(DEFAULT_CLASS_ALLOW_LIST))


def _snapshots(resources: dict[str, Any]) -> dict[str, Any]:
    """The arguments of what stores FLARE's notes of running jobs."""
    return resources["snapshot_persistor"]["args"]["storage"]["args"]


def _job_managers(resources: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in resources.get("components", []) if one.get("id") == "job_manager"]
