from __future__ import annotations

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import measure
from benchmarks.measure import MIB, Pairs, Spread
from fedmepd.errors import FedMEPDError


def test_spread() -> None:
    spread = Spread.of([3.0, 1.0, 2.0, 10.0])
    assert spread.as_dict() == {"median": 2.5, "lowest": 1.0, "highest": 10.0}
    assert spread.text(1) == "2.5 (1.0-10.0)"
    assert Spread.of([4.0]).text() == "4.00"


def test_ratios_are_those_of_each_pair() -> None:
    pairs = Pairs([10.0, 9.0], [2.0, 3.0])
    assert pairs.ratios() == [5.0, 3.0]
    # The ratio of the medians would be 3.8.
    assert pairs.ratio() == Spread(4.0, 3.0, 5.0)
    assert Pairs(["aaaa"], ["a"]).each(len).ratios() == [4.0]


def test_every_other_pair_starts_with_the_second() -> None:
    calls = []

    def measured(work: Callable[[], str]) -> int:
        calls.append(work().upper())
        return len(calls)

    def first() -> str:
        calls.append("first")
        return "first"

    def second() -> str:
        calls.append("second")
        return "second"

    found = measure.alternate(3, first, second, warmup=1, measure=measured)
    order = [call for call in calls if call.isupper()]
    assert calls[:2] == ["first", "second"]
    assert order == ["FIRST", "SECOND", "SECOND", "FIRST", "FIRST", "SECOND"]
    # Two calls to warm up, then every measurement adds two entries.
    assert found == Pairs([4, 10, 12], [6, 8, 14])


def hold(mib: int) -> Callable[[], int]:
    def work() -> int:
        # Written to, so that the memory is resident.
        content = bytearray(b"1") * (mib * MIB)
        return content.count(b"1") // MIB + os.getpid() * 0

    return work


def process_number() -> Callable[[], int]:
    return os.getpid


def end() -> Callable[[], None]:
    return lambda: os._exit(1)


def test_memory_of_a_fresh_process_is_its_own() -> None:
    mine = bytearray(b"1") * (600 * MIB)
    run = measure.in_fresh_process(hold, 200)
    assert run.result == 200 and len(mine) == 600 * MIB
    assert run.held_mib < 400 and run.peak_mib < 600
    assert run.above_mib == pytest.approx(200, abs=20)
    assert measure.peak_memory_mib() >= measure.memory_mib() - 1 > 600
    assert measure.in_fresh_process(process_number).result != os.getpid()


def test_a_process_that_dies_is_named() -> None:
    with pytest.raises(RuntimeError, match="process that ran end died: it may have run out of memory"):
        measure.in_fresh_process(end)


def test_table() -> None:
    assert measure.table(["site", "s"], [["one", 1.5], ["twelve", 10]]).splitlines() == [
        "| site   |   s |",
        "| ------ | --: |",
        "| one    | 1.5 |",
        "| twelve |  10 |",
    ]


def test_environment_does_not_say_whose_machine_it_is() -> None:
    found = measure.environment()
    assert found["cores"] >= 1 and found["threads"] >= 1 and found["fedmepd"]
    text = json.dumps(found)
    assert platform.node() not in text and str(Path.home()) not in text
    assert f"PyTorch {found['torch']}" in measure.describe(found) and found["processor"] in measure.describe(found)


def test_report(tmp_path: Path) -> None:
    path = measure.write_report("step", tmp_path / "new" / "step.json", {"cores": 2}, [{"a": 1}], pairs=5)
    assert path == tmp_path / "new" / "step.json"
    expected = {"benchmark": "step", "environment": {"cores": 2}, "pairs": 5, "rows": [{"a": 1}]}
    assert json.loads(path.read_text()) == expected


def test_arguments(capsys) -> None:
    options = measure.arguments("Something.").parse_args(["--json", "a.json"])
    assert (options.pairs, options.threads, options.json, options.quick) == (5, 0, Path("a.json"), False)
    with pytest.raises(SystemExit):
        measure.arguments("Something.").parse_args(["--pairs", "0"])
    assert "expected 1 or more, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        measure.arguments("Something.", pairs=None).parse_args(["--pairs", "3"])


def refused() -> None:
    raise FedMEPDError("the folder holds another run")


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def written() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "report.json")


@pytest.mark.parametrize(
    ("main", "status", "said"),
    [
        (refused, 2, "the folder holds another run"),
        (written, 2, "report.json: No space left on device"),
        (stopped, 130, "interrupted"),
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
    ],
)
def test_what_a_command_says_in_the_end(main, status: int, said: str, capsys) -> None:
    assert measure.command(main)() == status
    err = capsys.readouterr().err
    assert err.startswith(f"tests.benchmarks.test_measure: {said}") if said else not err
    assert err.count("\n") == bool(said)


def test_a_command_is_named_as_its_user_calls_it() -> None:
    command = [sys.executable, "-m", "benchmarks.results_page", "--keep", "name", "/nowhere"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert ended.returncode == 2 and ended.stderr.startswith("benchmarks.results_page: ")
