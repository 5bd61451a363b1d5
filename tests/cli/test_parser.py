"""What the command lines propose for what they do not know."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from fedmepd.cli import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["evalute"], "did you mean evaluate?"),
        (["data", "chek"], "did you mean check?"),
        # A topic's command without the topic.
        (["check", "folder"], "did you mean data check?"),
        (["run"], "did you mean poc run or compare run?"),
        (["chek"], "did you mean data check?"),
        (["methods", "fedmedp"], "did you mean fedmepd?"),
        (["methods", "fedmepd,local"], "did you mean fedmepd and local, each by itself?"),
        (
            ["job", "export", "a", "b", "--withoutcode"],
            "unrecognized arguments: --withoutcode; did you mean --without-code?",
        ),
        (["job", "export", "a", "b", "--fusionsite=site-1"], "did you mean --fusion-site?"),
        (["job", "export", "a", "b", "--tracking", "mlflo"], "did you mean mlflow?"),
        # One of several that are required.
        (
            ["data", "split", "--protcol", "brats2020", "a", "b"],
            "unrecognized arguments: --protcol; did you mean --protocol?",
        ),
    ],
)
def test_what_was_meant(arguments: list[str], told: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr().err
    assert caught.value.code == 2 and told in printed


@pytest.mark.parametrize("arguments", [["xyzzy"], ["results", "a", "--xyzzy"], ["results", "a", "b"]])
def test_nothing_is_proposed_that_is_not_like_it(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert "did you mean" not in capsys.readouterr().err


def test_the_usage_is_that_of_the_command(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["results", "a", "--jsn"])
    printed = capsys.readouterr().err
    assert printed.startswith("usage: fedmepd results") and "did you mean --json?" in printed


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--metod", "local"], "--method?"),
        (["--method", "fedavgg"], "did you mean fedavg?"),
        # Several values in one word, of an option that takes several.
        (["--method", "fedmepd,local"], "separate them by spaces: --method fedmepd local\n"),
        (["--method", "fedmepd, lokal"], "separate them by spaces: --method fedmepd lokal\n"),
        (["--seeds", "0,1,2"], "separate them by spaces: --seeds 0 1 2\n"),
        (["--seeds", "a"], "invalid int value: 'a'\n"),
    ],
)
def test_job_py(arguments: list[str], told: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "job.py"))["build_parser"]().parse_args(arguments)
    assert caught.value.code == 2 and told in capsys.readouterr().err
