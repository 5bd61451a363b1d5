"""The kit itself: its certificate, private key and root certificate.

FLARE 2.9 signs the files of a kit (``signature.json``) only for homomorphic encryption and confidential computing, and
verifies those signatures itself when it starts; in every other kit, trust rests on the certificates alone.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from fedmepd.doctor.checks import Check, Topic
from fedmepd.doctor.kit import Kit
from fedmepd.text_table import counted

# Renewing takes a provisioning run, and a new kit must be sent to every site.
_SOON_DAYS = 30

_KIT, _EXPIRY = Topic("kit"), Topic("certificate")
_AGAIN = "take the kit from its zip again, or ask the project's administrator for a new one"
_RENEW = "ask the project's administrator to renew it (provisioning/README.md: `nvflare provision` alone does not)"
_RENEW_ROOT = "the project's administrator has to provision into a new workspace and replace all kits"


def check_certificates(kit: Kit, now: datetime.datetime) -> Iterator[Check]:
    """Checks whether certificate, key and root fit together, are this site's, are secret, and how long they are valid.

    Args:
        kit: the kit.
        now: the time, with a time zone.
    """
    own, root = _certificate(kit.certificate), _certificate(kit.root)
    unread = [path for path, found in ((kit.certificate, own), (kit.root, root)) if found is None]
    if own is None or root is None:
        yield _KIT.error("certificate that cannot be read", f"{unread[0].name} is missing or damaged", _AGAIN)
        return
    faults = [*_consistency(kit, own, root)]
    yield from faults
    if not faults:
        yield _KIT.ok("certificate and key fit", f"{kit.role} {kit.name} of project {kit.project}")
    yield from _secrecy(kit.key)
    yield from _validity(own, "the certificate", now, _RENEW)
    yield from _validity(root, "the root certificate", now, _RENEW_ROOT)


def common_name(certificate: x509.Certificate) -> str:
    """Returns the name that a certificate is for."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _certificate(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError):
        return None


def _consistency(kit: Kit, own: x509.Certificate, root: x509.Certificate) -> Iterator[Check]:
    name = common_name(own)
    if name != kit.name:
        text = f"the certificate is for {name}, the kit for {kit.name}"
        yield _KIT.error("certificate of another name", text, f"files of two kits are mixed: {_AGAIN}")
    try:
        own.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        # If the project has an intermediate authority, the server verifies the chain.
        if len(x509.load_pem_x509_certificates(kit.certificate.read_bytes())) == 1:
            text = f"{kit.certificate.name} was not issued by {kit.root.name}"
            yield _KIT.error("certificate of another project", text, f"files of two kits are mixed: {_AGAIN}")
    try:
        key = load_pem_private_key(kit.key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        yield _KIT.error("private key that cannot be read", f"{kit.key.name} is missing, damaged or encrypted", _AGAIN)
        return
    if key.public_key() != own.public_key():
        text = f"{kit.key.name} does not belong to {kit.certificate.name}"
        yield _KIT.error("private key of another certificate", text, _AGAIN)


def _secrecy(key: Path) -> Iterator[Check]:
    try:
        mode = key.stat().st_mode
    except OSError:
        return
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        text = f"{key.name} has mode {stat.S_IMODE(mode):o}: who reads it can act as this site"
        yield _KIT.warning("private key that others may read", text, f"chmod 600 {key}")
    else:
        yield _KIT.ok("private key is its owner's alone")


def _validity(certificate: x509.Certificate, what: str, now: datetime.datetime, renewal: str) -> Iterator[Check]:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    days = (ends - now).days
    until = f"{what} is valid until {ends:%Y-%m-%d}"
    if now < begins:
        yield _EXPIRY.error(
            "not valid yet",
            f"{what} begins to be valid at {begins:%Y-%m-%d %H:%M} UTC, this machine's clock says {now:%Y-%m-%d %H:%M}",
            "set the clock (timedatectl set-ntp true); if it is right, the provisioning machine's was ahead: wait",
        )
    elif now >= ends:
        yield _EXPIRY.error("expired", f"{what} was valid until {ends:%Y-%m-%d}", f"nobody connects with it: {renewal}")
    elif days < _SOON_DAYS:
        yield _EXPIRY.warning("expires soon", f"{until}, {counted(days, 'day')}", f"it must outlast the run: {renewal}")
    else:
        yield _EXPIRY.ok("valid", f"{until}, {counted(days, 'day')}")
