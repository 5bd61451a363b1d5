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
    ("damage", "told"),
    [
        (lambda text: text[:50], "cannot be read as JSON"),
        (lambda text: "[]", "holds an array: expected what FLARE writes"),
        (lambda text: text.replace(":8002", ""), "servers.0.service.target = 'localhost': expected HOST:PORT"),
        (lambda text: text.replace(":8002", ":80020"), "servers.0.service.target = 'localhost:80020': expected HOST"),
        (lambda text: text.replace('"localhost:8002"', "8002"), "servers.0.service.target = 8002: expected a text"),
        (lambda text: text.replace("ssl_cert", "cert"), "client.ssl_cert is missing"),
        (lambda text: text.replace('"client.key"', "[1]"), "client.ssl_private_key: expected a text"),
        (lambda text: text.replace('"study"', "{}"), "servers.0.name: expected a text"),
        (lambda text: json.dumps({"servers": []}), "client is missing"),
        (lambda text: json.dumps({"servers": "here"}), "servers = 'here': expected a list"),
    ],
)
def test_damaged(kit_folder, damage, told):
    file = kit_folder / "startup" / "fed_client.json"
    file.write_text(damage(file.read_text()))
    with pytest.raises(SettingsError) as error:
        Kit.read(kit_folder)
    message = str(error.value)
    assert message.startswith(str(file)) and told in message and message.endswith("take the kit again")


def test_the_start_script_names_the_site(kit_folder):
    script = kit_folder / "startup" / "sub_start.sh"
    script.write_text(script.read_text().replace("uid=site-1", "uid=north"))
    assert Kit.read(kit_folder).name == "north"
    script.unlink()
    assert Kit.read(kit_folder).name == "site-1"
