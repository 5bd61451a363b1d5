"""Every method's tiny run gives the recorded weights, bit by bit, on a machine that computes as the recording one."""

from __future__ import annotations

import json

import pytest

from tests.federation.bits import METHODS, PRECISIONS, RECORDED, bits, machine, run

RECORD = json.loads(RECORDED.read_text())


same_machine = pytest.mark.skipif(machine() != RECORD["machine"], reason="this machine's arithmetic gives other bits")


@same_machine
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_same_bits_as_recorded(method, precision, finished, tiny, tmp_path) -> None:
    found = bits(finished(method).folder) if precision == "float32" else run(tiny, method, precision, tmp_path)
    expected = RECORD["runs"][f"{method} {precision}"]
    assert found.keys() == expected.keys()
    different = [key for key in expected if found[key] != expected[key]]
    assert not different, f"{len(different)} of {len(expected)} tensors differ, such as {different[:5]}"
