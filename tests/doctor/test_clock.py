"""The clock against the server's, and against a time server on 127.0.0.1."""

import contextlib
import socket
import struct
import threading
import time

import pytest

from fedmepd.doctor.clock import check_clock
from fedmepd.doctor.connection import Answer

_1900_TO_1970 = (70 * 365 + 17) * 24 * 3600


@contextlib.contextmanager
def time_server(ahead: float, spoil=lambda answer: answer):
    """A time server whose clock is ahead of ours by so many seconds; gives its address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as serving:
        serving.bind(("127.0.0.1", 0))
        serving.settimeout(20)

        def serve():
            with contextlib.suppress(OSError):
                asked, address = serving.recvfrom(512)
                assert len(asked) == 48 and asked[0] >> 3 & 7 == 4 and asked[0] & 7 == 3
                now = struct.pack("!Q", int((time.time() + ahead + _1900_TO_1970) * 2**32))
                # Leap 0, version 4, mode 4 (server), stratum 2.
                answer = bytes([0x24, 2, 6, 0xEC]) + bytes(12) + now + asked[40:48] + now + now
                serving.sendto(spoil(answer), address)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{serving.getsockname()[1]}"
    thread.join(20)


def test_nothing_to_compare_with():
    [check] = check_clock(Answer(), None, 1)
    assert (check.status, check.kind) == ("note", "not compared") and "--ntp" in check.advice


@pytest.mark.parametrize(
    ("offset", "within", "status", "words"),
    [
        (0.2, 0.5, "ok", "0.2 s ahead of the server's"),
        (-29.0, 0.5, "ok", "29.0 s behind the server's"),
        (31.0, 2.0, "ok", "give or take 2.0 s"),
        (-31.0, 0.5, "warning", "31.0 s behind the server's"),
        (7200.0, 0.5, "warning", "7200.0 s ahead of the server's"),
    ],
)
def test_the_server(offset, within, status, words):
    [check] = check_clock(Answer(offset, within), None, 1)
    assert check.status == status and words in check.text and bool(check.advice) == (status == "warning")


@pytest.mark.parametrize(
    ("ahead", "status", "word"), [(0, "ok", "agrees"), (60, "warning", "behind"), (-3600, "warning", "ahead")]
)
def test_a_time_server(ahead, status, word):
    with time_server(ahead) as address:
        [check] = check_clock(Answer(), address, 10)
    assert check.status == status and word in " ".join(check.lines()) and address in check.text
    measured = float(check.text.split()[0])
    assert abs(measured - abs(ahead)) < 5


def test_both():
    with time_server(0) as address:
        checks = list(check_clock(Answer(0.1, 0.5), address, 10))
    assert [check.status for check in checks] == ["ok", "ok"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: answer[:47],
        lambda answer: answer[:24] + bytes(8) + answer[32:],  # of another question
        lambda answer: bytes([0xE4]) + answer[1:],  # a server that has no time itself
        lambda answer: answer[:1] + b"\0" + answer[2:],  # one that asks not to be asked
        lambda answer: bytes([0x23]) + answer[1:],  # no server
    ],
)
def test_an_answer_that_tells_no_time(spoil):
    with time_server(3600, spoil) as address:
        [check] = check_clock(Answer(), address, 10)
    assert (check.status, check.kind) == ("warning", "time server that does not answer")


@pytest.mark.parametrize("address", ["ntp.invalid", "127.0.0.1:x"])
def test_no_time_server(address):
    [check] = check_clock(Answer(), address, 0.3)
    assert check.kind == "time server that does not answer" and address in check.text


def test_a_silent_time_server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        [check] = check_clock(Answer(), f"127.0.0.1:{silent.getsockname()[1]}", 0.3)
    assert check.kind == "time server that does not answer"
