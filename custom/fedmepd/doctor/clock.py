"""Whether this machine's clock is right.

TLS does not transmit the time. FLARE's server sends its time over ``http``, its default. This is the comparison that
matters to a federation, and it costs nothing. A time server is asked only with ``--ntp``, because hospital networks
often have their own and block others. The kernel's opinion of its clock (``timedatectl``) is not used: in containers
and virtual machines it is often negative although the host keeps the clock, and a positive one says nothing about the
time. :mod:`fedmepd.doctor.certificates` reports a certificate that is not valid yet.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

from fedmepd.doctor.checks import Check, Topic
from fedmepd.doctor.connection import Answer

# TLS and FLARE tolerate this difference, but it makes the logs of two sites hard to compare.
_MOST_SECONDS = 30.0

# From 1900, where NTP begins, to 1970.
_EPOCH = 2_208_988_800

_CLOCK = Topic("clock")
_SET = "have the clock kept by a time server (timedatectl set-ntp true, or chrony)"


def check_clock(answer: Answer, ntp: str | None, seconds: float) -> Iterator[Check]:
    """Compares this machine's clock with the server's, and with a time server's.

    Args:
        answer: of the federation's server.
        ntp: name of a time server, ``host`` or ``host:port``; None: do not ask one.
        seconds: to wait for it.
    """
    if answer.offset is not None:
        yield _compare(answer.offset, answer.within, "the server's")
    if ntp is not None:
        try:
            offset, within = _ask(ntp, seconds)
        except (OSError, ValueError) as error:
            text = f"{ntp} ({getattr(error, 'strerror', None) or error})"
            yield _CLOCK.warning("time server that does not answer", text, "name another, or allow UDP port 123 to it")
        else:
            yield _compare(offset, within, f"{ntp}'s")
    elif answer.offset is None:
        yield _CLOCK.note("not compared", "the server has not told its time", "--ntp HOST asks a time server")


def _compare(offset: float, within: float, whose: str) -> Check:
    text = f"{abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} {whose}, give or take {within:.1f} s"
    if abs(offset) - within > _MOST_SECONDS:
        return _CLOCK.warning("differs", text, _SET)
    return _CLOCK.ok("agrees", text)


def _ask(ntp: str, seconds: float) -> tuple[float, float]:
    """Asks a time server by SNTP (RFC 4330); returns this clock minus the server's, and the uncertainty, in seconds.

    Raises:
        OSError: it does not answer.
        ValueError: its answer does not contain the time.
    """
    host, _, port = ntp.partition(":") if ntp.count(":") == 1 else (ntp, "", "")
    family, kind, protocol, _, address = socket.getaddrinfo(host, int(port or 123), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as asking:
        asking.settimeout(seconds)
        asking.connect(address)
        sent = time.time()
        # Version 4, from a client. The server returns the time that we send, which distinguishes its answer from a
        # forged one.
        mark = struct.pack("!Q", int((sent + _EPOCH) * 2**32))
        asking.send(b"\x23" + bytes(39) + mark)
        answer = asking.recv(512)
        arrived = time.time()
    if len(answer) < 48 or answer[24:32] != mark or answer[0] & 7 != 4 or answer[0] >> 6 == 3 or not answer[1]:
        raise ValueError("its answer tells no time")
    received, left = (value / 2**32 - _EPOCH for value in struct.unpack("!QQ", answer[32:48]))
    return ((sent - received) + (arrived - left)) / 2, (arrived - sent - (left - received)) / 2
