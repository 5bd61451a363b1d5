"""What a server or site decides for itself, written into the ``local`` folder of its FLARE kit.

FLARE reads ``resources.json`` and ``authorization.json`` there in place of the ``.default`` files that provisioning
wrote, not in addition to them. So each is made from what the kit already has, and nothing of it is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import AdminCommandNames
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.security.security import COMMAND_CATEGORIES
from nvflare.tool.kit.kit_config import StartupKitConfigError, resolve_startup_kit_dir_by_id

from fedmepd.errors import SettingsError
from fedmepd.flare.tracking import TRACKERS
from fedmepd.storage import read_json, write_json
from fedmepd.tasks.task import Task

SERVER, SITE, ADMIN = "server", "site", "admin"
_CONFIGURATIONS = {SERVER: "fed_server.json", SITE: "fed_client.json", ADMIN: "fed_admin.json"}

RESOURCES, AUTHORIZATION, PRIVACY = "resources.json", "authorization.json", "privacy.json"

# What our jobs are built of besides the classes that FLARE allows anyway. FLARE calls what a job names, with the job's
# arguments. So these are single classes, each made for that, and never a package: it holds functions, too.
_OF_BOTH = (
    "fedmepd.flare.filters.FromWirePrecision",
    "fedmepd.flare.filters.ToWirePrecision",
    "nvflare.app_common.widgets.job_stats_reporter.JobStatsReporter",
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
# A class of FLARE's that imports any module it is told.
_IMPORTS_ANYTHING = "nvflare.app_common.widgets.decomposer_reg.DecomposerRegister"


def _is_too_much(name: str) -> bool:
    """Whether a job without code could start any program by what a name in the list allows, as older lists did."""
    if name.startswith("fedmepd."):
        return not any(name in names for names in ALLOWED.values())
    # FLARE takes every name for that of a package, too.
    return f"{_IMPORTS_ANYTHING}.".startswith(f"{name.rstrip('.')}.")


ADMISSION = {"id": "fedmepd_site_admission", "path": "fedmepd.flare.admission.SiteAdmission", "args": {}}

_BYOC, _SHELL = "byoc", "shell_commands"
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
        "`nvflare provision` and `nvflare package` make it"
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
            )

    def set_up(self) -> Path:
        """Lets jobs that carry no code use the classes that jobs are made of; returns the file that says so.

        A site's logs, which may name cases and paths, stay there too: FLARE by default sends its errors to the server.
        The server lets sites into jobs that run already (see :mod:`fedmepd.flare.admission`).
        """
        resources = self._read(RESOURCES)
        found = resources.get("class_allow_list", list(DEFAULT_CLASS_ALLOW_LIST))
        allowed, ours = [name for name in found if not _is_too_much(name)], ALLOWED[SERVER if self.is_server else SITE]
        resources["class_allow_list"] = [*allowed, *(name for name in ours if name not in allowed)]
        if self.is_server:
            components = resources.setdefault("components", [])
            components[:] = [one for one in components if one.get("id") != ADMISSION["id"]] + [ADMISSION]
        else:
            resources["allow_log_streaming"] = False
        return self._write(RESOURCES, resources)

    def too_much(self) -> list[str]:
        """Returns the allowed names with which a job could do anything here."""
        return [name for name in self._read(RESOURCES).get("class_allow_list", ()) if _is_too_much(name)]

    def refuse_code(self) -> Path:
        """Refuses jobs that carry code, whoever submits them; returns the file that says so."""
        return self._permit(lambda rights: rights | {_BYOC: "none"})

    def hide_files(self) -> Path:
        """Shows files of a site's kit to the site's own organisation alone; returns the file that says so.

        Logs are among them, and where the data are. FLARE's console by default shows them to a project admin, too.
        """
        return self._permit(lambda rights: rights | ({_SHELL: "o:site"} if rights.get(_SHELL) == "any" else {}))

    def _permit(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
        policy = self._read(AUTHORIZATION)
        permissions = policy.get("permissions")
        if not isinstance(permissions, dict):
            raise SettingsError(f"{self._source(AUTHORIZATION)}: expected permissions, a list of rights for each role")
        for role, rights in permissions.items():
            # One word for all rights ("any") leaves no room for an exception.
            permissions[role] = change(rights if isinstance(rights, dict) else dict.fromkeys(_RIGHTS, rights))
        return self._write(AUTHORIZATION, policy)

    def withhold(self, task: Task, modalities: Iterable[str]) -> Path:
        """Keeps what the site learns in these modalities' encoders from leaving it; returns the file that says so.

        FLARE applies the filter before any of the job's, and no job can switch it off.

        Raises:
            SettingsError: this is the server's kit, or the site has a policy that somebody else wrote.
            FedMEPDError: a modality is unknown.
        """
        if self.is_server:
            raise SettingsError("--withhold is for the kit of a site: the server keeps its own encoders anyway")
        scope = _scope(task.subset(modalities))
        policy = {"scopes": [scope], "default_scope": scope["name"]}
        path = self.local / PRIVACY
        if path.is_file() and self._read(PRIVACY) != policy:
            raise SettingsError(
                f"{path} holds another policy: move it away, or add to its filters by hand: "
                + json.dumps(scope["task_result_filters"])
            )
        return self._write(PRIVACY, policy)

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
            [manager] = [one for one in resources["components"] if one["id"] == "job_manager"]
            manager["args"]["uri_root"] = str(folder / "jobs")
            resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(folder / "snapshots")
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(
                f"{self._source(RESOURCES)}: expected a component job_manager and a snapshot_persistor, as FLARE 2.9 "
                "writes them"
            ) from error
        return self._write(RESOURCES, resources)

    def _source(self, name: str) -> Path:
        path = self.local / name
        return path if path.is_file() else self.local / f"{name}.default"

    def _read(self, name: str) -> dict[str, Any]:
        return read_json(self._source(name), "an object of keys and values", SettingsError)

    def _write(self, name: str, content: dict[str, Any]) -> Path:
        write_json(self.local / name, content)
        return self.local / name


def _scope(modalities: tuple[str, ...]) -> dict[str, Any]:
    pattern = rf"^encoders\.({'|'.join(map(re.escape, modalities))})\."
    return {
        "name": "withheld",
        "task_result_filters": [
            {"path": "nvflare.app_common.filters.exclude_vars.ExcludeVars", "args": {"exclude_vars": pattern}}
        ],
    }
