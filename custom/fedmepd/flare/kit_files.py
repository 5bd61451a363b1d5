"""What is read of the files in the ``local`` folder of a FLARE kit: their schemas. All else in them stays as it is.

Projects, administrators and other programs write them, so each value is checked before it is used, and a message names
file and key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from fedmepd.errors import SettingsError, explain
from fedmepd.storage import read_json

RESOURCES, AUTHORIZATION, PRIVACY = "resources.json", "authorization.json", "privacy.json"

REMEDY = (
    "correct it, or restore it from a backup. If you delete it, what it decided is lost: say it again with "
    "`fedmepd kit` (--refuse-code, --withhold, --jobs)"
)


class _File(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class Arguments(_File):
    """What a component is made with."""

    uri_root: str | None = None


class Component(_File):
    """A component, as FLARE makes it of its class."""

    id: str = ""
    args: Arguments | None = None


class Resources(_File):
    """``resources.json``: which classes a job without code may use, and the components of server or site."""

    class_allow_list: list[str] = list(DEFAULT_CLASS_ALLOW_LIST)
    class_list_enforcement_mode: Literal["enforce", "warn"] = "enforce"
    allow_log_streaming: bool = True
    components: list[Component] = []


def _require_rights(value: Any) -> Any:
    by_name = value if isinstance(value, dict) else {"": value}
    for name, words in by_name.items():
        if not isinstance(words, str) and not (isinstance(words, list) and all(isinstance(one, str) for one in words)):
            about = f"{name}: " if name else ""
            raise ValueError(f"{about}expected a right in words, such as any, none or o:site, or a list of them")
    return value


class Authorization(_File):
    """``authorization.json``: what each role may do; one word for all, or words by right."""

    permissions: dict[str, Annotated[Any, AfterValidator(_require_rights)]]


class Filter(_File):
    """A filter of what a site sends."""

    path: str = ""
    args: dict[str, Any] | None = None


class Scope(_File):
    """A policy that a job may name."""

    name: str
    task_result_filters: list[Filter] = []


class Privacy(_File):
    """``privacy.json``: filters that no job can switch off."""

    scopes: list[Scope] = []
    default_scope: str | None = None


_SCHEMAS: dict[str, type[_File]] = {RESOURCES: Resources, AUTHORIZATION: Authorization, PRIVACY: Privacy}


def read_checked(path: Path, name: str) -> dict[str, Any]:
    """Returns the content of a file of a kit.

    Args:
        path: the file.
        name: of :data:`RESOURCES`, :data:`AUTHORIZATION` and :data:`PRIVACY` that whose content it has.

    Raises:
        SettingsError: it cannot be read, or a value that is read here is of the wrong kind.
    """
    content = read_json(path, "an object of keys and values", SettingsError, hint=f": {REMEDY}")
    try:
        _SCHEMAS[name].model_validate(content)
    except ValidationError as error:
        told = explain(error, str(path), _SCHEMAS[name])
        raise SettingsError(f"{told}: {REMEDY}") from error
    return content
