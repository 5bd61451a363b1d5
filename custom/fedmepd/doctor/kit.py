"""A FLARE startup kit, as ``nvflare provision`` or ``nvflare poc prepare`` make it: its owner and its server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedmepd.closest import like_path
from fedmepd.config import FUSION_SITE
from fedmepd.errors import SettingsError, explain
from fedmepd.flare.poc.workspace import PROJECT
from fedmepd.storage import read_json

_CONFIGURATIONS = {"site": "fed_client.json", "server": "fed_server.json"}

# FLARE's own default where a kit does not say.
_SECURITY = "mtls"


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class _Service(_Read):
    target: str
    scheme: str = "grpc"

    @field_validator("target")
    @classmethod
    def _has_port(cls, target: str) -> str:
        host, _, port = target.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError("expected HOST:PORT")
        return target


class _Identity(_Read):
    ssl_cert: str
    ssl_private_key: str
    ssl_root_cert: str
    connection_security: str | None = None


class _Server(_Read):
    name: str
    service: _Service
    identity: str | None = None
    admin_server: str | None = None


class _OwnServer(_Server, _Identity):
    pass


class _Client(_Identity):
    fqsn: str


class _SiteFile(_Read):
    servers: Annotated[list[_Server], Field(min_length=1)]
    client: _Client


class _ServerFile(_Read):
    servers: Annotated[list[_OwnServer], Field(min_length=1)]


@dataclass(frozen=True)
class Kit:
    """The content of a kit.

    Args:
        folder: the kit's folder, which FLARE also uses as its workspace.
        role: whether it is a site's or the server's.
        name: by which FLARE knows the site or server; its certificate must say the same.
        project: the federation's name.
        host, port: where the server is reached.
        identity: the server's name, which its certificate must say.
        scheme: of the connection: ``http`` (FLARE's default), ``grpc`` or ``tcp``.
        security: ``mtls``, ``tls`` (only the server shows a certificate) or ``clear``.
        certificate, key, root: their files.
    """

    folder: Path
    role: Literal["site", "server"]
    name: str
    project: str
    host: str
    port: int
    identity: str
    scheme: str
    security: str
    certificate: Path
    key: Path
    root: Path

    @property
    def local(self) -> Path:
        """The folder with what the site's administrator configures."""
        return self.folder / "local"

    @property
    def of_poc(self) -> bool:
        """Whether it is part of a workspace of `fedmepd poc`, which starts its server and sites itself."""
        return self.project == PROJECT

    @property
    def site(self) -> str:
        """The site whose data are trained on: the server has those of the fusion site."""
        return self.name if self.role == "site" else FUSION_SITE

    @classmethod
    def read(cls, folder: Path) -> Kit:
        """Reads a kit.

        Raises:
            SettingsError: the folder is not the kit of a site or of a server, or its configuration cannot be read.
        """
        startup = Path(folder) / "startup"
        role = next((role for role, file in _CONFIGURATIONS.items() if (startup / file).is_file()), None)
        if role is None:
            hint = ", but an administrator's" if (startup / "fed_admin.json").is_file() else ""
            raise SettingsError(
                f"{folder} is no FLARE kit of a site or of the server{hint}: expected a folder with "
                f"startup/{' or startup/'.join(_CONFIGURATIONS.values())}, as `nvflare provision` makes it"
                f"{like_path(folder)}"
            )
        file = startup / _CONFIGURATIONS[role]
        content = read_json(file, "what FLARE writes", SettingsError, hint=": take the kit again")
        schema = _SiteFile if role == "site" else _ServerFile
        try:
            read = schema.model_validate(content)
        except ValidationError as error:
            raise SettingsError(
                f"{explain(error, str(file), schema)}, as FLARE writes it: take the kit again"
            ) from error
        server = read.servers[0]
        own = read.client if role == "site" else server
        host, _, port = server.service.target.rpartition(":")
        return cls(
            folder=Path(folder).absolute(),
            role=role,
            name=_name(startup, own.fqsn) if role == "site" else server.admin_server or host,
            project=server.name,
            host=host,
            port=int(port),
            identity=server.identity or server.admin_server or host,
            scheme=server.service.scheme,
            security=own.connection_security or _SECURITY,
            certificate=startup / own.ssl_cert,
            key=startup / own.ssl_private_key,
            root=startup / own.ssl_root_cert,
        )


def _name(startup: Path, otherwise: str) -> str:
    """The name that the start script gives the site, which counts for FLARE; else the configuration's."""
    script = startup / "sub_start.sh"
    if script.is_file():
        found = re.search(r"\buid=([^\s\"']+)", script.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
    return otherwise
