"""A tiny run in FLARE's simulator gives the bits of the same run in one process."""

import pytest

from tests.federation.bits import METHODS, PRECISIONS, bits, of, run
from tests.system.simulator import simulate

pytestmark = [pytest.mark.system, pytest.mark.slow]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_same_bits_as_in_one_process(method, precision, tiny, tmp_path):
    settings = of(method, precision).model_dump(mode="json")
    machine = tiny.machine
    finished = simulate(tmp_path / "w", settings, "-t", "2", data=machine.data, cache=machine.cache)
    assert finished.code == 0, finished.output
    found, expected = bits(finished.workspace), run(tiny, method, precision, tmp_path / "one")
    assert found.keys() == expected.keys()
    different = [key for key in expected if found[key] != expected[key]]
    assert not different, f"{len(different)} of {len(expected)} tensors differ, such as {different[:5]}"
