"""Certificates for tests: an authority as a project has one, and what it issues."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)


def days(number: float) -> datetime.datetime:
    """That many days from now."""
    return NOW + datetime.timedelta(days=number)


class Authority:
    """A root certificate and its key.

    Args:
        name: of the project.
        begins, ends: in days from now.
    """

    def __init__(self, name: str = "project", begins: float = -10, ends: float = 300):
        self.name = _name(name)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self.name, self.key, begins, ends, x509.BasicConstraints(True, None))

    def write(self, file: Path) -> None:
        """Writes the root certificate."""
        file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, certificate: Path, key: Path, name: str, *, begins: float = -10, ends: float = 300, hosts: tuple = ()
    ) -> None:
        """Writes a certificate and its key."""
        own = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_host(host) for host in hosts or (name,)])
        made = self._sign(_name(name), own, begins, ends, names)
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.TraditionalOpenSSL
        key.write_bytes(own.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        key.chmod(0o600)

    def _sign(self, name, key, begins, ends, extension) -> x509.Certificate:
        builder = x509.CertificateBuilder(self.name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(days(begins)).not_valid_after(days(ends))
        return builder.add_extension(extension, critical=False).sign(self.key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
