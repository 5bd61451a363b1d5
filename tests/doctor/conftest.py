import json
import shutil
from pathlib import Path

import pytest

from tests.doctor.authority import Authority

BUILDERS = [
    {"path": "nvflare.lighter.impl.workspace.WorkspaceBuilder", "args": {"template_file": ["master_template.yml"]}},
    {"path": "nvflare.lighter.impl.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
    {"path": "nvflare.lighter.impl.cert.CertBuilder"},
    {"path": "nvflare.lighter.impl.signature.SignatureBuilder"},
]


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory) -> Path:
    """Kits of a project with the server localhost and site-1, as FLARE's own builders write them."""
    from nvflare.lighter.provision import prepare_builders, prepare_project
    from nvflare.lighter.provisioner import Provisioner

    project = {
        "api_version": 3,
        "name": "study",
        "participants": [
            {"name": "localhost", "type": "server", "org": "a", "fed_learn_port": 8002, "admin_port": 8003},
            {"name": "site-1", "type": "client", "org": "a"},
            {"name": "boss@a.org", "type": "admin", "org": "a", "role": "project_admin"},
        ],
        "builders": BUILDERS,
    }
    root = tmp_path_factory.mktemp("provisioned")
    Provisioner(str(root), prepare_builders(project)).provision(prepare_project(project))
    return root / "study" / "prod_00"


@pytest.fixture
def kit_folder(provisioned, tmp_path) -> Path:
    """A copy of site-1's kit."""
    return Path(shutil.copytree(provisioned / "site-1", tmp_path / "site-1"))


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def issued(kit_folder, authority) -> Path:
    """The kit with certificates of ``authority``."""
    startup = kit_folder / "startup"
    authority.write(startup / "rootCA.pem")
    authority.issue(startup / "client.crt", startup / "client.key", "site-1")
    return kit_folder


def change(kit: Path, port: int | None = None, host: str = "127.0.0.1", scheme: str = "http", **more) -> None:
    """Points a site's kit to another server; other keywords change what the kit says of the client."""
    file = kit / "startup" / "fed_client.json"
    content = json.loads(file.read_text())
    service = content["servers"][0]["service"]
    service["scheme"] = scheme
    if port is not None:
        service["target"] = f"{host}:{port}"
    content["client"] |= more
    file.write_text(json.dumps(content))
