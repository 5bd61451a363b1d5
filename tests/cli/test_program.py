from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch

import fedmepd
from fedmepd.cli import main
from fedmepd.data.phantom import phantom_sites
from fedmepd.evaluation import results
from tests.data.phantoms import stand_in
from tests.evaluation import runs
from tests.networks import oracle
from tests.signals import WITH_INTERRUPTS_IGNORED


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A simulator workspace with a finished run."""
    results.write(tmp_path / "server" / "simulate_job" / "results", runs.finished(), {})
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["results", "--help"],
        ["predict", "--help"],
        ["evaluate", "--help"],
        ["methods", "--help"],
        ["compare", "show", "--help"],
        ["checkpoint", "import", "--help"],
        ["job", "export", "--help"],
        ["kit", "--help"],
        ["data", "split", "--help"],
    ],
)
def test_help_does_not_wait_for_torch(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from fedmepd.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'monai', 'numpy', 'nvflare', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout


def test_the_installed_command_and_its_exit_status(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "fedmepd.cli", "results", str(tmp_path)], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("fedmepd: no run in") and run.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [["--json"], []], ids=["long", "short"])
def test_a_reader_that_has_seen_enough(options: list[str], workspace: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "fedmepd.cli", "results", str(workspace), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    run.stdout.close()
    assert (run.stderr.read(), run.wait(60)) == (b"", 0)
    run.stderr.close()


class Interrupted(io.StringIO):
    """A terminal at which the first line brings a signal."""

    def __init__(self, how: signal.Signals):
        super().__init__()
        self.how = how

    def write(self, text: str) -> int:
        os.kill(os.getpid(), self.how)
        return super().write(text)


@pytest.mark.parametrize("inherited", [signal.default_int_handler, signal.SIG_IGN], ids=["at a terminal", "with &"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(how, inherited, workspace: Path, capsys: pytest.CaptureFixture) -> None:
    outside = signal.signal(signal.SIGINT, inherited)
    try:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with redirect_stdout(Interrupted(how)):
            assert main(["results", str(workspace)]) == 130
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    finally:
        signal.signal(signal.SIGINT, outside)
    assert capsys.readouterr().err == "fedmepd: interrupted\n"


def test_a_command_that_a_script_has_started_is_interrupted(workspace: Path) -> None:
    """It prints more than the pipe takes, and waits for its reader."""
    file = workspace / "server" / "simulate_job" / "results" / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"more": [0] * 2**18}))
    command = [sys.executable, "-m", "fedmepd.cli", "results", str(workspace), "--json"]
    run = subprocess.Popen([*WITH_INTERRUPTS_IGNORED, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = run.stdout.read(1)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert (first, errors, run.returncode) == (b"{", b"fedmepd: interrupted\n", 130)


def test_in_another_thread_signals_stay_as_they_are(workspace: Path) -> None:
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(main(["results", str(workspace)])))
    thread.start()
    thread.join()
    assert statuses == [0]


@pytest.mark.parametrize("arguments", [[], ["results"], ["data"], ["checkpoint", "import", "a.pth"], ["fly"]])
def test_incomplete_commands(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: fedmepd" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--tune",), ("--at-once", "2")])
def test_a_list_of_runs_starts_none(options: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", "run", "plan.yaml", "out", "--list", *options]) == 2
    assert f"{options[0]}: --list starts nothing" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"fedmepd {fedmepd.__version__}\n"


def test_results_prints_the_table(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["results", str(workspace)]) == 0
    printed = capsys.readouterr()
    assert "mean of the sites" in printed.out and "  0.625  " in printed.out
    assert printed.err == ""


def test_results_as_json(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["results", str(workspace), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == runs.finished()


def test_results_of_a_running_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    results.write(tmp_path / "results", runs.running(), {})
    assert main(["results", str(tmp_path)]) == 0
    assert "the run is not finished" in capsys.readouterr().out


def test_of_several_runs_the_newest_is_shown_and_the_others_are_named(tmp_path: Path, capsys) -> None:
    for name, age in (("a", 100), ("b", 0)):
        folder = tmp_path / name / "server" / "simulate_job" / "results"
        results.write(folder, runs.finished(), {})
        written = (folder / "results.json").stat().st_mtime - age
        os.utime(folder / "results.json", (written, written))
    for command in (["results"], ["results", "--json"], ["report", "--out", str(tmp_path / "page")]):
        assert main([command[0], str(tmp_path), *command[1:]]) == 0
        printed = capsys.readouterr()
        assert f"the newest of 2 runs: {tmp_path / 'b'} (fedmepd, seed" in printed.err
        assert f"name another one to see it: {tmp_path / 'a'}\n" in printed.err
        assert "newest" not in printed.out
    assert main(["results", str(tmp_path / "a")]) == 0 and capsys.readouterr().err == ""


def publish(path: Path, calibrated: bool, width: int = 4) -> tuple[dict, dict | None]:
    """Writes a checkpoint like the authors' and returns its state and anchors."""
    state = oracle.random_state(width, calibrated=calibrated)
    content = {"state_dict": state, "round": 12, "dice": np.zeros(3)}
    anchors = None
    if calibrated:
        anchors = oracle.random_anchors(width)
        content["proto"] = {f"x{level}": rows.view(4, 4, -1) for level, rows in anchors.items()}
    torch.save(content, path)
    return state, anchors


@pytest.mark.parametrize("calibrated", [False, True], ids=["server", "client"])
def test_checkpoint_import_and_show(calibrated: bool, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state, anchors = publish(tmp_path / "published.pth", calibrated)
    model = tmp_path / "models" / "model.pt"
    assert main(["checkpoint", "import", str(tmp_path / "published.pth"), str(model)]) == 0
    assert str(model) in capsys.readouterr().out

    images = torch.randn(1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = oracle.forward(state, images, [True, False, False, True], anchors).segmentation
        actual = fedmepd.load_model(str(model))(images[:, [3, 0]], ("T2", "FLAIR"))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)

    assert main(["checkpoint", "show", str(model)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["width"] == 4 and shown["modalities"] == ["FLAIR", "T1ce", "T1", "T2"]
    assert shown["about"]["round"] == 12 and shown["about"]["method"] == "fedmepd"
    assert (shown["calibration"] is not None) == calibrated


def test_checkpoint_import_keeps_a_model_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    publish(tmp_path / "published.pth", False)
    (tmp_path / "model_best.pt").write_bytes(b"trained for a week")
    assert main(["checkpoint", "import", str(tmp_path / "published.pth"), str(tmp_path / "model_best.pt")]) == 2
    assert "model_best.pt exists already: choose another name" in capsys.readouterr().err
    assert (tmp_path / "model_best.pt").read_bytes() == b"trained for a week"


def test_checkpoint_import_refuses_another_layout(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, tmp_path / "other.pth")
    (tmp_path / "model.pt").write_bytes(b"old")
    assert main(["checkpoint", "import", str(tmp_path / "other.pth"), str(tmp_path / "model.pt")]) == 2
    printed = capsys.readouterr().err
    assert str(tmp_path / "other.pth") in printed and "c1_encoder" in printed and printed.count("\n") == 1
    assert (tmp_path / "model.pt").read_bytes() == b"old"


@pytest.mark.parametrize("command", ["import", "show"])
def test_checkpoint_without_a_file(command: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = [str(tmp_path / "nowhere.pt")] + ([str(tmp_path / "model.pt")] if command == "import" else [])
    assert main(["checkpoint", command, *arguments]) == 2
    assert "nowhere.pt does not exist" in capsys.readouterr().err


def test_show_points_to_import(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    publish(tmp_path / "published.pth", calibrated=False)
    assert main(["checkpoint", "show", str(tmp_path / "published.pth")]) == 2
    assert "fedmepd checkpoint import" in capsys.readouterr().err


def test_job_export(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = tmp_path / "job" / "app" / "config"
    config.mkdir(parents=True)
    (tmp_path / "job" / "meta.json").write_text('{"deploy_map": {}}')
    arguments = ["job", "export", str(tmp_path / "job"), str(tmp_path / "exported")]
    assert main(arguments) == 0
    assert str(tmp_path / "exported") in capsys.readouterr().out
    assert (tmp_path / "exported" / "app" / "custom" / "fedmepd" / "cli" / "program.py").is_file()
    assert main(arguments) == 2
    assert "exported exists already" in capsys.readouterr().err


def test_data_phantom_makes_every_site(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Which sites with which seed; all but one are there already, since the phantoms have their own tests."""
    protocol = phantom_sites()
    assert list(protocol) == [*(f"site-{number}" for number in range(1, 9)), "fusion"]
    for site in protocol:
        if site != "site-5":
            stand_in(tmp_path, site, 5)
    assert main(["data", "phantom", str(tmp_path), "--seed", "5"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == [str(tmp_path / site) for site in protocol]
    assert f"{tmp_path / 'site-5'}  T1ce" in printed
    assert json.loads((tmp_path / "site-5" / "phantom.json").read_text())["seed"] == 5
    assert main(["data", "phantom", str(tmp_path), "--seed", "6"]) == 2
    assert "site-1 is not the phantom of site-1 with seed 6" in capsys.readouterr().err
    assert main(["data", "phantom", str(tmp_path), "--seed", "5", "--cohort", "hospitals"]) == 2
    assert "with seed 5 in the cohort hospitals" in capsys.readouterr().err
