"""What the federation expects of a site: versions of programs, and the job's settings.

A server cannot be asked for its versions by somebody who is no administrator and runs no job: FLARE tells its version
only in answer to a registration, which a check must not make, and those of Python's packages never. So the server's
operator writes them into a small file (``fedmepd doctor SERVER_KIT --write FILE``), which goes to the sites with their
kits or after them; in a kit's ``local`` folder it is found by itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fedmepd import __version__
from fedmepd.config import Settings
from fedmepd.environment import versions
from fedmepd.errors import SettingsError
from fedmepd.storage import write_text
from fedmepd.tasks.find import DEFAULT

FILE_NAME = "fedmepd-federation.json"

# What must fit between a site and its server.
PROGRAMS = ("python", "fedmepd", "nvflare", "torch")


class Federation(BaseModel):
    """What the file holds: the project's name, the server's versions, and the job's settings if they are known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    project: str
    versions: dict[Literal["python", "fedmepd", "nvflare", "torch"], str]
    settings: dict[str, Any] | None = None


@dataclass(frozen=True)
class Expected:
    """What a site is compared with.

    Args:
        settings: of the job.
        versions: the server's, by program; None: not known.
        source: where the settings are from; empty if nobody has said them and the published ones are assumed.
    """

    settings: Settings
    versions: dict[str, str] | None = None
    source: str = ""


def expected(federation: Path | None, job: Path | None, task: str = DEFAULT) -> Expected:
    """Puts together what is known of the federation.

    Args:
        federation: the server's file, or None.
        job: a job's folder, whose settings win over the file's, or None.
        task: where neither of them says it.

    Raises:
        SettingsError: a file cannot be read, or holds something else.
    """
    known = None if federation is None else _read(federation)
    versions = None if known is None else dict(known.versions)
    if job is not None:
        return Expected(job_settings(job), versions, f"job {job.resolve().name}")
    if known is not None and known.settings is not None:
        return Expected(Settings.make("paper", known.settings), versions, str(federation))
    return Expected(Settings.make("paper", {"task": task}), versions)


def write_federation(path: Path, project: str, job: Path | None) -> None:
    """Writes this machine's versions and the job's settings for the sites; only what differs from the defaults.

    Raises:
        FedMEPDError: the job cannot be read, or the file cannot be written.
    """
    settings = None if job is None else job_settings(job).model_dump(mode="json", exclude_defaults=True)
    content = Federation(project=project, versions=installed_versions(), settings=settings)
    write_text(path, content.model_dump_json(indent=1) + "\n")


def installed_versions() -> dict[str, str]:
    """Returns this environment's version of each of :data:`PROGRAMS` that is installed."""
    return {"fedmepd": __version__} | versions(("nvflare", "torch"))


def job_settings(job: Path) -> Settings:
    """Returns the settings of a job's folder.

    Raises:
        SettingsError: it is no job of FedMEPD, or its settings cannot be used.
    """
    files = sorted(Path(job).glob("*/config/config_fed_server.json"))
    try:
        for file in files:
            for workflow in json.loads(file.read_text(encoding="utf-8"))["workflows"]:
                if workflow["path"].startswith("fedmepd."):
                    given = workflow.get("args", {})
                    return Settings.make(given.get("preset", "paper"), given.get("settings"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{file} cannot be read as a job's configuration: {error}") from error
    raise SettingsError(f"{job} is no job of FedMEPD: expected a folder such as jobs/fedmepd_brats")


def _read(file: Path) -> Federation:
    try:
        return Federation.model_validate_json(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}: the server's operator writes it") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "content"
        raise SettingsError(
            f"{file}: {key}: {first['msg']}: expected what `fedmepd doctor SERVER_KIT --write FILE` writes"
        ) from error
