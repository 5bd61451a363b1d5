import json

import pytest

from fedmepd.doctor.kit import Kit
from fedmepd.errors import SettingsError


def test_a_site(provisioned):
    kit = Kit.read(provisioned / "site-1")
    assert (kit.role, kit.name, kit.site, kit.project) == ("site", "site-1", "site-1", "study")
    assert (kit.host, kit.port, kit.identity) == ("localhost", 8002, "localhost")
    assert (kit.scheme, kit.security) == ("http", "mtls")
    assert all(file.is_file() for file in (kit.certificate, kit.key, kit.root)) and kit.local.is_dir()


def test_the_server(provisioned):
    kit = Kit.read(provisioned / "localhost")
    assert (kit.role, kit.name, kit.site, kit.port) == ("server", "localhost", "fusion", 8002)
    assert kit.certificate.name == "server.crt" and kit.certificate.is_file() and kit.root.is_file()


def test_no_kit(provisioned, tmp_path):
    with pytest.raises(SettingsError, match="no FLARE kit of a site or of the server: expected .*fed_client.json"):
        Kit.read(tmp_path)
    with pytest.raises(SettingsError, match="but an administrator's"):
        Kit.read(provisioned / "boss@a.org")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:50],
        lambda text: "[]",
        lambda text: text.replace(":8002", ""),
        lambda text: text.replace("ssl_cert", "cert"),
        lambda text: json.dumps({"servers": []}),
    ],
)
def test_damaged(kit_folder, damage):
    file = kit_folder / "startup" / "fed_client.json"
    file.write_text(damage(file.read_text()))
    with pytest.raises(SettingsError, match=r"fed_client.json .*what FLARE writes.*: take the kit again"):
        Kit.read(kit_folder)


def test_the_start_script_names_the_site(kit_folder):
    script = kit_folder / "startup" / "sub_start.sh"
    script.write_text(script.read_text().replace("uid=site-1", "uid=north"))
    assert Kit.read(kit_folder).name == "north"
    script.unlink()
    assert Kit.read(kit_folder).name == "site-1"
