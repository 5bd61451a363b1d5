"""Against servers on 127.0.0.1 that run what FLARE's drivers run, and against others."""

import datetime
import socket
import struct
import sys
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization

from fedmepd.doctor.connection import Answer, check_server
from fedmepd.doctor.kit import Kit
from fedmepd.flare.poc.workspace import PROJECT
from tests.doctor import servers
from tests.doctor.authority import Authority
from tests.doctor.conftest import change


def check(kit, answer=None, seconds=10.0):
    [found] = check_server(Kit.read(kit), answer or Answer(), seconds, refusal_seconds=0.3)
    assert bool(found.advice) == (found.status != "ok")
    return found


def silent(connection):
    """Waits until the other side ends."""
    while connection.recv(100):
        pass


def test_flare_http(issued, authority, tmp_path):
    answer = Answer()
    with servers.flare_http(servers.tls(tmp_path, authority)) as port:
        change(issued, port)
        found = check(issued, answer)
    assert (found.status, found.kind) == ("ok", "reachable by TLS") and f"127.0.0.1:{port}, TLSv1.3" in found.text
    # One machine: the clocks agree, as closely as whole seconds tell.
    assert abs(answer.offset) <= answer.within + 0.01 and answer.within >= 0.5
    assert answer.python == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_a_servers_clock(issued, authority, tmp_path):
    def talk(connection):
        connection.recv(1000)
        told = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=100)
        connection.sendall(f"HTTP/1.1 404 Not Found\r\nDate: {told:%a, %d %b %Y %H:%M:%S} GMT\r\n\r\n".encode())

    answer = Answer()
    with servers.raw(talk, servers.tls(tmp_path, authority)) as port:
        change(issued, port)
        assert check(issued, answer).status == "ok"
    assert abs(answer.offset - 100) <= answer.within + 0.01 and answer.python == ""


def test_flare_grpc(issued, authority, tmp_path):
    with servers.flare_grpc(tmp_path, authority, hosts=("127.0.0.1",)) as port:
        change(issued, port, scheme="grpc")
        found = check(issued)
    assert found.status == "ok" and "grpc" in found.text


def test_grpc_asks_for_the_hosts_name(issued, authority, tmp_path):
    with servers.flare_grpc(tmp_path, authority, hosts=("flare.hospital.org", "*.example.org")) as port:
        change(issued, port, scheme="grpc")
        found = check(issued)
        assert found.kind == "host that the certificate does not name" and "127.0.0.1" in found.text
        change(issued, port)
        found = check(issued)
        assert found.kind == "connection that was cut" and "speaks http" in found.advice


def test_flare_tcp(issued, authority, tmp_path):
    with servers.raw(silent, servers.tls(tmp_path, authority)) as port:
        change(issued, port, scheme="tcp")
        assert check(issued).status == "ok"


@pytest.mark.parametrize("scheme", ["http", "grpc", "tcp"])
def test_a_server_that_refuses_the_site(issued, authority, tmp_path, scheme):
    """The site trusts the server, but not the server the site; told after the site's handshake is done."""
    others = Authority("another project")
    serving = {
        "http": lambda: servers.flare_http(servers.tls(tmp_path, authority, clients=others)),
        "grpc": lambda: servers.flare_grpc(tmp_path, authority, others, hosts=("127.0.0.1",)),
        "tcp": lambda: servers.raw(silent, servers.tls(tmp_path, authority, clients=others)),
    }
    with serving[scheme]() as port:
        change(issued, port, scheme=scheme)
        found = check(issued)
    # Of the three, tcp alone says why.
    expected = "server that refuses the certificate" if scheme == "tcp" else "connection that was cut"
    assert (found.status, found.kind) == ("error", expected) and "site-1" in found.advice


def test_one_sided_tls(issued, authority, tmp_path):
    """A proxy ends TLS with a certificate of its own, which the kit trusts by customRootCA.pem."""
    proxy = Authority("proxy")
    context = servers.tls(tmp_path, proxy, name="proxy.hospital.org")
    context.verify_mode = servers.ssl.CERT_NONE
    with servers.flare_http(context) as port:
        change(issued, port, connection_security="tls")
        assert check(issued).kind == "server's certificate of another project"
        proxy.write(issued / "startup" / "customRootCA.pem")
        assert check(issued).status == "ok"


def test_no_tls(issued):
    with servers.raw(silent) as port:
        change(issued, port, connection_security="clear")
        found = check(issued)
    assert (found.status, found.kind) == ("warning", "connection without TLS")


def test_another_project(issued, tmp_path):
    with servers.raw(silent, servers.tls(tmp_path, Authority())) as port:
        change(issued, port)
        found = check(issued)
    assert (found.status, found.kind) == ("error", "server's certificate of another project")


@pytest.mark.parametrize("dates", [{"begins": -20, "ends": -1}, {"begins": 1, "ends": 20}])
def test_not_valid_now(issued, authority, tmp_path, dates):
    with servers.raw(silent, servers.tls(tmp_path, authority, **dates)) as port:
        change(issued, port)
        found = check(issued)
    assert found.kind == "server's certificate that is not valid now" and "clock" in found.advice
    assert ("expired" if dates["ends"] < 0 else "not yet valid") in found.text


def test_another_server(issued, authority, tmp_path):
    with servers.raw(silent, servers.tls(tmp_path, authority, name="other.org")) as port:
        change(issued, port)
        found = check(issued)
    assert found.kind == "another server" and "other.org" in found.text and "localhost" in found.text


def test_plain_text(issued):
    def greet(connection):
        connection.sendall(b"220 mail.hospital.org ready\r\n")
        silent(connection)

    with servers.raw(greet) as port:
        change(issued, port)
        assert check(issued).kind == "something else than TLS"


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_cut(issued, how):
    def talk(connection):
        connection.recv(10_000)
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with servers.raw(talk) as port:
        change(issued, port)
        found = check(issued)
    assert (found.status, found.kind) == ("error", "connection that was cut") and "site-1" in found.advice


def test_another_service(issued, authority, tmp_path):
    def talk(connection):
        connection.recv(1000)
        connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    with servers.raw(talk, servers.tls(tmp_path, authority)) as port:
        change(issued, port)
        assert check(issued).kind == "another service than FLARE"


def test_silence(issued):
    started = time.monotonic()
    with servers.raw(silent) as port:
        change(issued, port)
        found = check(issued, seconds=0.5)
    assert found.kind == "no answer to TLS" and time.monotonic() - started < 10


def test_no_answer(issued, monkeypatch):
    """A firewall that drops what comes."""

    def drop(address, timeout):
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", drop)
    assert check(issued).kind == "no answer"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def test_refused(issued):
    port = closed_port()
    change(issued, port)
    found = check(issued)
    assert (found.status, found.kind) == ("error", "connection refused") and f"127.0.0.1:{port}" in found.text


def test_refused_in_a_trial_on_this_machine(issued):
    change(issued, closed_port())
    [found] = check_server(replace(Kit.read(issued), project=PROJECT), Answer(), 1)
    assert (found.status, found.kind) == ("note", "server that is not started") and "fedmepd poc start" in found.advice


def test_a_server_that_is_not_started(provisioned, monkeypatch):
    kit = Kit.read(provisioned / "localhost")

    def refuse(address, timeout):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    [found] = check_server(kit, Answer(), 1)
    assert (found.status, found.kind) == ("note", "server that is not started")


@pytest.mark.parametrize("host", ["flare.invalid", "a..b"])
def test_no_such_name(issued, host):
    change(issued, 8002, host=host)
    found = check(issued)
    assert found.kind == "name that has no address" and host in found.text


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_kit_that_cannot_connect(issued, encrypted):
    """An encrypted key too, without a question for its password."""
    key = issued / "startup" / "client.key"
    if encrypted:
        lock = serialization.BestAvailableEncryption(b"secret")
        form = serialization.PrivateFormat.PKCS8
        opened = serialization.load_pem_private_key(key.read_bytes(), None)
        key.write_bytes(opened.private_bytes(serialization.Encoding.PEM, form, lock))
    else:
        key.write_text("x")
    with servers.raw(silent) as port:
        change(issued, port)
        assert check(issued).kind == "kit that cannot connect"
