"""Whether the server can be reached in the way in which FLARE 2.9 connects.

A kit's ``scheme`` is ``http`` (a WebSocket, FLARE's default), ``grpc`` or ``tcp``; all three run inside TLS on the one
port of the server, and both sides show certificates of the project's root. FLARE compares the host's name with the
certificate's only under ``grpc``; under all three it afterwards refuses a server whose certificate is not for the name
that the kit calls its ``identity``. Both are checked here as FLARE does it. Nothing is registered: the server sees a
connection that ends.

With TLS 1.3 a server checks the site's certificate after the connection looks complete to the site. So the site listens
for a second and then asks something. With ``http`` it asks for a page, and FLARE's server answers with "not found", its
version of Python and its time. With ``grpc`` it sends the settings with which every HTTP/2 connection begins. With
``tcp`` every question would be a registration, so a certificate that the server does not refuse within the second
counts as accepted.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from cryptography import x509

from fedmepd.doctor.certificates import common_name
from fedmepd.doctor.checks import Check, Topic
from fedmepd.doctor.kit import Kit

_SERVER = Topic("server")

# What an HTTP/2 client begins with: the preface, then a settings frame (type 4) without any setting.
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04" + bytes(5)

_OPERATOR = "ask the server's operator"

# Python reports these as TLS errors, but they only mean that the other side is gone.
_ENDED = (ssl.SSLEOFError, ssl.SSLZeroReturnError)


@dataclass
class Answer:
    """What a server reveals about itself through the connection.

    Attributes:
        offset: this machine's clock minus the server's, in seconds; None: unknown.
        within: uncertainty of ``offset``, in seconds.
        python: its version of Python, such as ``3.11``; empty if unknown.
    """

    offset: float | None = None
    within: float = 0.0
    python: str = ""


def check_server(kit: Kit, answer: Answer, seconds: float, refusal_seconds: float = 1.0) -> Iterator[Check]:
    """Connects to the kit's server step by step, and stops at the first failure.

    Args:
        kit: of a site, or the server's own.
        answer: receives what the server reveals.
        seconds: to wait for each step.
        refusal_seconds: to wait for the server to refuse the site's certificate; a refusal takes one round trip.
    """
    place = f"{kit.host}:{kit.port}"
    try:
        addresses = socket.getaddrinfo(kit.host, kit.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        advice = f"{_OPERATOR} whether {kit.host} is the right name, and your network's administrator for its address"
        yield _SERVER.error("name that has no address", f"{kit.host} ({reason})", advice)
        return
    connection, problem = _connect([address[4] for address in addresses], seconds)
    if connection is None:
        yield _unreached(kit, place, problem)
        return
    with connection:
        if kit.security == "clear":
            text = f"{place} answers; the kit says connection_security clear"
            advice = "for patients' data have the project provisioned with mutual TLS, FLARE's default"
            yield _SERVER.warning("connection without TLS", text, advice)
            return
        yield from _handshake(kit, connection, place, answer, refusal_seconds)


def _connect(addresses: list, seconds: float) -> tuple[socket.socket | None, OSError]:
    """Tries a host's addresses one after the other, as FLARE does; returns the last one's problem."""
    problem = OSError()
    for address in addresses:
        try:
            return socket.create_connection(address[:2], seconds), problem
        except OSError as error:
            problem = error
    return None, problem


def _unreached(kit: Kit, place: str, problem: OSError) -> Check:
    if isinstance(problem, ConnectionRefusedError):
        if kit.role == "server" or kit.of_poc:
            how = "`fedmepd poc start`, or `fedmepd poc run`, starts it" if kit.of_poc else "startup/start.sh"
            return _SERVER.note("server that is not started", f"nothing listens on {place}", how)
        advice = f"{_OPERATOR} whether it is started, and whether its firewall lets port {kit.port} in"
        return _SERVER.error("connection refused", f"nothing listens on {place}", advice)
    if isinstance(problem, TimeoutError):
        advice = f"ask your network's administrator, and the server's operator, to let connections to {place} pass"
        return _SERVER.error("no answer", f"{place} does not answer; most likely a firewall drops it", advice)
    advice = f"ask your network's administrator for a way to {place}"
    return _SERVER.error("no way to the server", f"{place} ({problem.strerror or problem})", advice)


def _handshake(
    kit: Kit, connection: socket.socket, place: str, answer: Answer, refusal_seconds: float
) -> Iterator[Check]:
    try:
        context = _context(kit)
    except (OSError, ValueError) as error:
        text = f"certificate, key or root of the kit cannot be used ({_reason(error)})"
        yield _SERVER.error("kit that cannot connect", text, "see the lines on the kit above")
        return
    try:
        with context.wrap_socket(connection, server_hostname=kit.host) as secure:
            theirs = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
            wrong = _wrong_name(kit, theirs)
            if wrong:
                yield wrong
                return
            _ask(kit, secure, answer, refusal_seconds)
            yield _SERVER.ok("reachable by TLS", f"{place}, {secure.version()}, {kit.scheme}, {common_name(theirs)}")
    except (OSError, ValueError) as error:
        yield _failed(kit, place, error)


def _context(kit: Kit) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python does not check it, because its error names do not distinguish the cases; see _wrong_name.
    context.check_hostname = False
    custom = kit.root.with_name("customRootCA.pem")
    one_sided = kit.security == "tls"
    context.load_verify_locations(custom if one_sided and custom.is_file() else kit.root)
    if not one_sided:
        # Without a password Python would ask for one.
        context.load_cert_chain(kit.certificate, kit.key, password="")
    if kit.scheme == "grpc":
        context.set_alpn_protocols(["h2"])
    return context


def _wrong_name(kit: Kit, theirs: x509.Certificate) -> Check | None:
    name = common_name(theirs)
    # With one-sided TLS this may be a proxy's certificate; the server's own comes later, inside the connection.
    if kit.security == "mtls" and name != kit.identity:
        text = f"{kit.host} shows a certificate for {name}, the kit expects {kit.identity}"
        return _SERVER.error("another server", text, f"{_OPERATOR} for the server's address, or for a new kit")
    if kit.scheme == "grpc" and not _covers(theirs, kit.host):
        text = f"the server's certificate does not name {kit.host}, which grpc asks for"
        advice = f"have {kit.host} added to the server's host_names in project.yml and the project provisioned again"
        return _SERVER.error("host that the certificate does not name", text, advice)
    return None


def _covers(certificate: x509.Certificate, host: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    patterns = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    return host.lower() in patterns or f"*.{host.lower().partition('.')[2]}" in patterns


def _ask(kit: Kit, connection: ssl.SSLSocket, answer: Answer, refusal_seconds: float) -> None:
    """Waits for the server to refuse the site's certificate, then asks the server something.

    Raises:
        OSError: it refuses.
        ValueError: it answers something that FLARE's server would not.
    """
    # Nothing is sent before a refusal could have arrived: if a server closes with unread data, its reason is lost.
    first = _listen(connection, refusal_seconds)
    if kit.scheme == "tcp":
        return
    if kit.scheme == "grpc":
        connection.sendall(_HTTP2)
        # A frame's fourth byte is its type; the first one must be settings.
        if (first + _read(connection, 9 - len(first)))[3:4] != b"\x04":
            raise ValueError("no gRPC")
        return
    if first:
        raise ValueError("no HTTP")
    asked = time.time()
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {kit.host}\r\nConnection: close\r\n\r\n".encode())
    head = _read(connection, 4096, b"\r\n\r\n").decode("latin-1")
    if not head.startswith("HTTP/1."):
        raise ValueError("no HTTP")
    took = time.time() - asked
    date, server = (_header(head, name) for name in ("Date", "Server"))
    with contextlib.suppress(ValueError):
        told = parsedate_to_datetime(date).replace(tzinfo=datetime.UTC).timestamp()
        # The server tells whole seconds, rounded down: it was in the middle of one when half of the time had passed.
        answer.offset, answer.within = asked + took / 2 - (told + 0.5), took / 2 + 0.5
    python = re.search(r"Python/(\d+\.\d+)", server)
    answer.python = python[1] if python else ""


def _listen(connection: ssl.SSLSocket, seconds: float) -> bytes:
    """Returns the first byte that arrives in time; empty if none does."""
    patience = connection.gettimeout()
    connection.settimeout(seconds)
    try:
        found = connection.recv(1)
    except TimeoutError:
        return b""
    finally:
        connection.settimeout(patience)
    if not found:
        raise ConnectionResetError("it ended the connection")
    return found


def _read(connection: ssl.SSLSocket, most: int, end: bytes = b"") -> bytes:
    found = b""
    while len(found) < most and not (end and end in found):
        part = connection.recv(most - len(found))
        if not part:
            raise ConnectionResetError("it ended the connection")
        found += part
    return found


def _header(head: str, name: str) -> str:
    found = re.search(rf"^{name}: *(.*?)\r?$", head, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else ""


def _failed(kit: Kit, place: str, error: Exception) -> Check:
    text = f"{place} ({_reason(error)})"
    if isinstance(error, ssl.SSLCertVerificationError):
        # Of OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED.
        if error.verify_code in (9, 10):
            advice = f"compare this machine's clock; if it is right, {_OPERATOR} to renew the server's kit"
            return _SERVER.error("server's certificate that is not valid now", text, advice)
        advice = f"{_OPERATOR} whether the kit is of this project; a proxy must not open TLS on the way"
        return _SERVER.error("server's certificate of another project", text, advice)
    if isinstance(error, TimeoutError):
        advice = f"{_OPERATOR} whether the server is overloaded; a firewall on the way may hold TLS back"
        return _SERVER.error("no answer to TLS", f"{place} takes the connection and is silent", advice)
    if isinstance(error, ssl.SSLError) and not isinstance(error, _ENDED):
        if "ALERT" in (error.reason or ""):
            advice = f"ask the project's administrator whether {kit.name}'s certificate is of this project"
            return _SERVER.error("server that refuses the certificate", text, advice)
        advice = f"{_OPERATOR} which port FLARE listens on; a proxy on the way must pass TLS through"
        return _SERVER.error("something else than TLS", text, advice)
    if isinstance(error, OSError):
        advice = (
            f"{_OPERATOR} what its log says: whether it takes {kit.name}'s certificate, and speaks {kit.scheme}; a "
            "firewall may also cut TLS"
        )
        return _SERVER.error("connection that was cut", text, advice)
    advice = f"{_OPERATOR} which port FLARE listens on, and by which scheme"
    return _SERVER.error("another service than FLARE", text, advice)


def _reason(error: Exception) -> str:
    if isinstance(error, _ENDED):
        return "it ended the connection"
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(getattr(error, "strerror", None) or error)
