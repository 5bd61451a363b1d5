import shutil

import pytest

from fedmepd.doctor.certificates import check_certificates
from fedmepd.doctor.kit import Kit
from tests.doctor.authority import NOW, Authority, days


def checks(folder, now=NOW):
    """What was found, by kind."""
    return {check.kind: check for check in check_certificates(Kit.read(folder), now)}


@pytest.mark.parametrize("name", ["site-1", "localhost"])
def test_a_kit_that_flare_made(provisioned, name):
    found = list(check_certificates(Kit.read(provisioned / name), days(0.1)))
    assert [check.status for check in found] == ["ok"] * 4
    assert name in found[0].text and "359 days" in found[2].text and "root" in found[3].text


@pytest.mark.parametrize(
    ("after", "kind", "status"),
    [
        (-11, "not valid yet", "error"),
        (260, "valid", "ok"),
        (280, "expires soon", "warning"),
        (301, "expired", "error"),
    ],
)
def test_days(issued, after, kind, status):
    found = [check for check in check_certificates(Kit.read(issued), days(after)) if check.topic == "certificate"]
    assert [(check.kind, check.status) for check in found] == [(kind, status)] * 2
    assert found[0].text.startswith("the certificate") and found[1].text.startswith("the root certificate")
    assert all(bool(check.advice) == (status != "ok") for check in found)
    if kind.startswith("expire"):
        # Provisioning again hands out the same certificate.
        assert "nvflare provision` alone does not" in found[0].advice and "new workspace" in found[1].advice
    if after == 280:
        assert "19 days" in found[0].text or "20 days" in found[0].text


def test_the_root_may_expire_first(kit_folder):
    startup = kit_folder / "startup"
    authority = Authority(ends=10)
    authority.write(startup / "rootCA.pem")
    authority.issue(startup / "client.crt", startup / "client.key", "site-1", ends=300)
    found = checks(kit_folder)
    assert "root certificate" in found["expires soon"].text and "replace all kits" in found["expires soon"].advice
    assert found["valid"].status == "ok"


def test_another_name(issued, authority):
    startup = issued / "startup"
    authority.issue(startup / "client.crt", startup / "client.key", "site-2")
    check = checks(issued)["certificate of another name"]
    assert check.status == "error" and "site-2" in check.text and "site-1" in check.text


def test_another_project(issued):
    Authority().write(issued / "startup" / "rootCA.pem")
    found = checks(issued)
    assert found["certificate of another project"].status == "error" and "certificate and key fit" not in found


def test_another_key(issued, authority, tmp_path):
    authority.issue(tmp_path / "x.crt", issued / "startup" / "client.key", "site-1")
    assert checks(issued)["private key of another certificate"].status == "error"


def test_a_key_that_others_may_read(issued):
    key = issued / "startup" / "client.key"
    key.chmod(0o644)
    check = checks(issued)["private key that others may read"]
    assert check.status == "warning" and "644" in check.text and check.advice == f"chmod 600 {key}"


@pytest.mark.parametrize("file", ["client.crt", "rootCA.pem"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_unreadable_certificates(issued, file, damage):
    path = issued / "startup" / file
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:100])
    found = list(check_certificates(Kit.read(issued), NOW))
    assert [check.kind for check in found] == ["certificate that cannot be read"] and file in found[0].text


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_unreadable_key(issued, damage):
    key = issued / "startup" / "client.key"
    key.unlink() if damage == "missing" else key.write_text("x")
    assert checks(issued)["private key that cannot be read"].status == "error"


def test_a_chain_is_not_judged(issued, authority, tmp_path):
    """A certificate by an intermediate authority, which the server verifies."""
    startup, between = issued / "startup", Authority("between")
    between.issue(startup / "client.crt", startup / "client.key", "site-1")
    between.write(tmp_path / "between.pem")
    with open(startup / "client.crt", "ab") as file, open(tmp_path / "between.pem", "rb") as more:
        shutil.copyfileobj(more, file)
    assert "certificate and key fit" in checks(issued)
