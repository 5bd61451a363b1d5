from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from fedmepd.seeds import derive_seed


@pytest.mark.parametrize(
    ("parts", "text"),
    [((0,), b"0"), ((7, "site-1", 3), b"7/site-1/3"), ((2**31 - 1, "crop"), b"2147483647/crop")],
)
def test_is_the_start_of_a_hash(parts: tuple, text: bytes) -> None:
    """Written out, so that a change (which would change every run) does not pass unnoticed."""
    digest = hashlib.sha256(text).digest()
    little_endian = digest[0] + 256 * digest[1] + 256**2 * digest[2] + 256**3 * digest[3]
    assert derive_seed(*parts) == little_endian % 2**31


def test_every_part_matters() -> None:
    seeds = {
        derive_seed(seed, site, round)
        for seed in range(10)
        for site in ("site-1", "site-2", "site-11", "fusion")
        for round in range(25)
    }
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_parts_do_not_run_into_each_other() -> None:
    assert derive_seed(1, "site-1", 1) != derive_seed(1, "site-11")
    assert derive_seed(1, 2, 3) != derive_seed(12, 3) != derive_seed(1, 23)


def test_the_same_in_every_process() -> None:
    """Python salts its own hash in each process; a site restarted for every round must not notice."""
    program = "from fedmepd.seeds import derive_seed; print(derive_seed(5, 'site-3', 8))"
    for salt in ("1", "2"):
        output = subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": salt}, capture_output=True, text=True, check=True
        )
        assert int(output.stdout) == derive_seed(5, "site-3", 8)
