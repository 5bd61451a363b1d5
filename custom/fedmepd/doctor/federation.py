"""What the federation expects of a site: versions of programs, and the job's settings.

Only administrators and running jobs can ask a server for its versions. FLARE sends its own version only in answer to a
registration, which a check must not make, and it never sends those of Python's packages. So the server's operator
writes them into a small file (``fedmepd doctor SERVER_KIT --write FILE``) and sends it to the sites. In a kit's
``local`` folder it is found automatically.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fedmepd import __version__
from fedmepd.closest import like_path
from fedmepd.config import Settings
from fedmepd.doctor.kit import Kit
from fedmepd.environment import versions
from fedmepd.errors import SettingsError, explain, require_printable
from fedmepd.job_settings import make_settings
from fedmepd.storage import read_json, write_text
from fedmepd.tasks.find import DEFAULT

FILE_NAME = "fedmepd-federation.json"

# Programs whose versions at a site must fit those at the server.
PROGRAMS = ("python", "fedmepd", "nvflare", "torch")


# They are printed at the hospital, and come from somebody else.
_Text = Annotated[str, Field(max_length=200), AfterValidator(require_printable)]


class Federation(BaseModel):
    """What the file holds: the project's name, the server's versions, and the job's settings if they are known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    project: _Text
    versions: dict[Literal["python", "fedmepd", "nvflare", "torch"], _Text]
    settings: dict[str, Any] | None = None


@dataclass(frozen=True)
class Expected:
    """What a site is compared with.

    Args:
        settings: of the job.
        versions: the server's, by program; None: not known.
        source: origin of the settings; empty if none are given and the published ones are assumed.
    """

    settings: Settings
    versions: dict[str, str] | None = None
    source: str = ""

    def with_fusion_at(self, kit: Kit) -> Expected:
        """The same with the fusion site at the kit's owner.

        Raises:
            SettingsError: it is the server, or the job names another site.
        """
        site = self.settings.fusion.site
        if kit.role != "site":
            raise SettingsError(f"--fusion: {kit.folder} is the server's kit: check that of the hospital")
        if self.source and site != kit.name:
            raise SettingsError(f"--fusion: the fusion site in {self.source} is {site or 'the server'}, not {kit.name}")
        fusion = self.settings.fusion.model_copy(update={"site": kit.name})
        return replace(self, settings=self.settings.model_copy(update={"fusion": fusion}))


def expected(federation: Path | None, job: Path | None, task: str = DEFAULT) -> Expected:
    """Combines what is known about the federation.

    Args:
        federation: the server's file, or None.
        job: a job's folder, whose settings override the file's, or None.
        task: the task if neither of them names one.

    Raises:
        SettingsError: a file cannot be read, or holds something else.
    """
    known = None if federation is None else _read(federation)
    versions = None if known is None else dict(known.versions)
    if job is not None:
        return Expected(job_settings(job), versions, f"job {job.resolve().name}")
    if known is not None and known.settings is not None:
        return Expected(make_settings("paper", known.settings), versions, str(federation))
    return Expected(make_settings("paper", {"task": task}), versions)


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
        SettingsError: it is not a job of FedMEPD, or its settings cannot be used.
    """
    files = sorted(Path(job).glob("*/config/config_fed_server.json"))
    try:
        for file in files:
            for workflow in read_json(file, "a job's configuration", SettingsError)["workflows"]:
                if workflow["path"].startswith("fedmepd."):
                    given = workflow.get("args", {})
                    return make_settings(given.get("preset", "paper"), given.get("settings"))
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{file} cannot be read as a job's configuration: {error}") from error
    raise SettingsError(f"{job} is no job of FedMEPD: expected a folder such as jobs/fedmepd_brats{like_path(job)}")


def _read(file: Path) -> Federation:
    try:
        return Federation.model_validate_json(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}: the server's operator writes it") from error
    except ValidationError as error:
        raise SettingsError(
            f"{explain(error, str(file), Federation)}: expected what `fedmepd doctor SERVER_KIT --write FILE` writes"
        ) from error
