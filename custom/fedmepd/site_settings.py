"""Settings of a machine, such as its data folder and its device.

The settings of a job (:mod:`fedmepd.config`) come from the server. These never do, and only ``cross_site`` leaves the
machine.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from fedmepd.closest import closest, question
from fedmepd.config import PrivacySettings
from fedmepd.disclosure import Allow, Disclosure
from fedmepd.errors import SettingsError, explain
from fedmepd.site_limits import HIGHEST, Limits
from fedmepd.storage import has_file, read_json

if TYPE_CHECKING:
    import torch

FILE_NAME = "fedmepd.json"
_REMEDY = ": correct it, or restore it from a backup. Without it the defaults hold, also for what may leave the machine"

# The environment variable that overrides a key of the file.
VARIABLES = {
    "data": "FEDMEPD_DATA",
    "device": "FEDMEPD_DEVICE",
    "cache": "FEDMEPD_CACHE",
    "cross_site": "FEDMEPD_CROSS_SITE",
    "case_scores": "FEDMEPD_CASE_SCORES",
    "min_count": "FEDMEPD_MIN_COUNT",
    "reproducible": "FEDMEPD_REPRODUCIBLE",
}
_PREFIX = "FEDMEPD_"
# Kubernetes sets such variables in every container where a service is named fedmepd.
_OF_A_SERVICE = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT|PORT)(_\w+)?")


class SitePrivacy(BaseModel):
    """What a site demands of differential privacy, whatever a job says."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epsilon: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="budget of this site for all runs together. No job trains here beyond it, and a job without "
        "differential privacy trains here with it. null: as the job says",
    )
    per_run: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="most of that budget that a single run may take, whatever its job says; null: all that is left",
    )
    delta: float = Field(1e-5, gt=0, lt=0.1, description="delta of that; the smaller one of site and job counts")
    scores: Literal["none", "share"] = Field(
        "none",
        description="where there is differential privacy: whether scores on validation and test cases leave the site; "
        "epsilon does not cover them. Sites with phantoms share",
    )

    @model_validator(mode="after")
    def _a_share_of_a_budget(self) -> SitePrivacy:
        if self.per_run is not None and (self.epsilon is None or self.per_run > self.epsilon):
            raise ValueError("per_run is what one run may take of epsilon: expected an epsilon, at least as large")
        return self

    def wanted(self, job: PrivacySettings) -> bool:
        """Whether a job trains here with differential privacy, since it asks for it or the site does."""
        return bool(job.epsilon) or self.epsilon is not None


class SiteSettings(BaseModel):
    """What a site decides for itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path | None = Field(None, description="folder with one sub-folder per site, or with this site's cases")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...; auto: the GPU if there is one")
    cache: Path = Field(Path("~/.cache/fedmepd"), description="folder for phantoms and prepared cases")

    cross_site: Literal["none", "test", "share"] = Field(
        "none",
        description="for jobs that ask for it. test: other sites' models are tested on this site's test cases; share: "
        "this site's own model, with its personal filters, is also tested at other sites. Sites with phantoms share",
    )
    case_scores: Literal["none", "share"] = Field(
        "none",
        description="share: the final test's scores of every test case leave the site, without names, for `fedmepd "
        "compare`. none: means over the test cases only. Sites with phantoms share",
    )
    min_count: int = Field(
        3,
        ge=1,
        le=10_000,
        description="no mean over fewer patients leaves the site: scores, losses, anchors; phantoms and simulator: 1",
    )
    reproducible: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="no: crops and dropout also depend on a secret of the site, so that nobody else can repeat its "
        "training. yes: they depend on the job's seed alone. auto: yes with phantoms and in the simulator, otherwise "
        "no",
    )
    limits: Limits = Field(Limits(), description="the most that a job may ask of this machine")
    allow: Allow = Field(Allow(), description="kinds of values that may leave the site")
    privacy: SitePrivacy = Field(SitePrivacy(), description="differential privacy, whatever a job says")
    _one_machine: bool = PrivateAttr(False)

    @classmethod
    def load(cls, local_folder: Path | None = None, *, cache_needed: bool = True) -> SiteSettings:
        """Reads ``fedmepd.json`` of the site's local folder, if it exists. Environment variables override it.

        Args:
            local_folder: the ``local`` folder of the site's FLARE kit, or None. Relative paths in the file
                are relative to it. Without a kit, relative paths in variables are relative to the current folder.
            cache_needed: False: ``cache`` is None for a user who has neither a home folder nor said where it is.

        Raises:
            SettingsError: the file is no file, or not JSON, a key or variable is unknown, a value is of the wrong kind,
                or there is no place for the cache.
        """
        _refuse_unknown_variables()
        values: dict[str, Any] = {}
        origin: dict[str, str] = {}
        file = Path(local_folder) / FILE_NAME if local_folder is not None else None
        if file is not None:
            values = kept_values(file)
            origin = dict.fromkeys(values, str(file))
            for key in ("data", "cache"):
                if isinstance(values.get(key), str) and values[key]:
                    values[key] = file.parent.absolute() / Path(values[key]).expanduser()
        for key, variable in VARIABLES.items():
            if os.environ.get(variable):
                values[key], origin[key] = os.environ[variable], f"environment variable {variable}"
                if file is not None and key in ("data", "cache"):
                    _require_absolute(variable)
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            told = explain(error, lambda key: origin.get(key, "site settings"), cls, defaults=True)
            raise SettingsError(told) from error
        paths = {"data": settings.data, "cache": settings.cache}
        if "cache" not in values and not has_home():
            if cache_needed:
                raise SettingsError(
                    "the user has no home folder, in which prepared cases would be kept: set FEDMEPD_CACHE to another "
                    f"folder, or cache in {FILE_NAME}"
                )
            paths["cache"] = None
        try:
            absolute = {key: path and path.expanduser().absolute() for key, path in paths.items()}
        except RuntimeError as error:
            raise SettingsError(f"{error}: expected paths without ~, since the user has no home folder") from error
        return settings.model_copy(update=absolute)

    def for_one_machine(self) -> SiteSettings:
        """Returns the settings for a federation in which all sites are on this machine and belong to one user.

        Nothing leaves such a site, so what has not been set is as open as it can be.
        """
        open_values = {"min_count": 1, "reproducible": "yes", "limits": HIGHEST}
        unset = {key: value for key, value in open_values.items() if key not in self.model_fields_set}
        copy = self.model_copy(update=unset)
        copy._one_machine = True
        return copy

    def why_no_data(self) -> str:
        """Returns why there is nothing at all in the data folder; empty if there is a folder, or none is named."""
        if self.data is None or os.path.isdir(self.data):
            return ""
        return f"the data folder {self.data} does not exist, is no folder, or cannot be entered"

    @property
    def prepared(self) -> Path:
        """Folder with the prepared cases, in the cache."""
        return self.cache / "prepared"

    @property
    def shares_folder(self) -> bool:
        """Whether ``data`` is the folder of several sites, so that cases in it without a sub-folder are nobody's."""
        return self._one_machine

    def variables(self) -> dict[str, str]:
        """Returns the environment variables with which other processes read what is set here.

        What nobody has set stays out: it depends on where a process runs (see :meth:`for_one_machine`).
        """
        chosen = {key: getattr(self, key) for key in VARIABLES if key in self.model_fields_set}
        return {VARIABLES[key]: str(value) for key, value in chosen.items() if value is not None}

    def disclosure(self) -> Disclosure:
        """Returns what decides which values leave the site."""
        return Disclosure(self.min_count, self.allow)

    def is_reproducible(self, source: str) -> bool:
        """Whether training with cases of a source depends on the job's seed alone."""
        return self.reproducible == "yes" or (self.reproducible == "auto" and source == "phantom")

    def torch_device(self) -> torch.device:
        """Returns the device to compute on.

        Raises:
            SettingsError: there is no such device, or it cannot be used.
        """
        import torch

        # Zero where PyTorch has no CUDA, or the driver does not answer.
        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if self.device == "auto":
            return torch.device("cuda" if gpus else "cpu")
        available = ["cpu", "cuda", *gpus] if gpus else ["cpu"]
        if self.device not in available:
            raise SettingsError(
                f"device {self.device!r} does not exist on this machine: expected one of "
                f"{', '.join(['auto', *available])} (--device, FEDMEPD_DEVICE, or device in {FILE_NAME})"
            )
        try:
            torch.empty(1, device=self.device)
        except RuntimeError as error:
            raise SettingsError(
                f"device {self.device!r} cannot be used: {error}. Set FEDMEPD_DEVICE, or device in {FILE_NAME}, to "
                f"another of {', '.join(available)}"
            ) from error
        return torch.device(self.device)


def _refuse_unknown_variables() -> None:
    # A slip in FEDMEPD_DATA would make a site train on phantoms, and nobody would notice.
    known = {variable.removeprefix(_PREFIX): variable for variable in VARIABLES.values()}
    # An empty one counts as not set, as those of settings do.
    for variable in sorted(name for name, value in os.environ.items() if value):
        name = variable.removeprefix(_PREFIX)
        if name != variable and name not in known and not _OF_A_SERVICE.fullmatch(name):
            meant = question([known[one] for one in closest(name, known)])
            raise SettingsError(
                f"environment variable {variable}: no setting has this name{meant or '.'} Unset it. There are "
                f"{', '.join(known.values())}; everything else is set in {FILE_NAME}"
            )


def kept_values(file: Path) -> dict[str, Any]:
    """Returns what is in a ``fedmepd.json``, not checked yet; nothing where there is none.

    Raises:
        SettingsError: it is not JSON, or no file.
    """
    if not has_file(file, SettingsError, _REMEDY):
        return {}
    return read_json(file, "an object of keys and values", SettingsError, hint=_REMEDY)


def has_home() -> bool:
    """Whether the user has a home folder: in containers HOME may be missing or empty, and no entry in passwd."""
    if os.environ.get("HOME") == "":
        return False
    try:
        Path("~").expanduser()
    except RuntimeError:
        return False
    return True


def _require_absolute(variable: str) -> None:
    """Raises :class:`SettingsError` if a path is relative: FLARE's processes start in folders of their own."""
    path = Path(os.environ[variable])
    if not path.is_absolute() and not str(path).startswith("~"):
        raise SettingsError(
            f"environment variable {variable} = {path}: FLARE's processes start in folders of their own, where this is "
            f"another place: expected the whole path, such as {variable}=$PWD/{path}"
        )
