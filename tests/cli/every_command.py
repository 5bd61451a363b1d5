"""Runs every command of ``fedmepd`` in this process, whose environment may be strange.

    python -m tests.cli.every_command MATERIAL WORK [COMMAND ...]

MATERIAL is what :func:`material` has written, WORK the folder in which the commands run and write. For each command a
line of JSON says what came of it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.comparing import runs
from tests.data.files import write_case
from tests.evaluation.runs import finished

ROOT = Path(__file__).parents[2]

# By command: its arguments, {m} for MATERIAL, and the exit status that is right. Where a command would start processes,
# or wants what cannot be had here, it has to be refused in one line.
COMMANDS = {
    "methods": ("", 0),
    "tasks": ("", 0),
    "results": ("{m}/run", 0),
    "report": ("{m}/run --out page.html", 0),
    "data check": ("{m}/data", 0),
    "data init": ("{m}/data --out set", 0),
    "data split": ("{m}/data sites --protocol brats2020", 2),
    "data phantom": ("/proc/phantoms", 2),
    "predict": ("--model {m}/model.pt {m}/data --out seg --overlay", 0),
    "evaluate": ("--predictions seg --labels {m}/data --out scores", 0),
    "checkpoint show": ("{m}/model.pt", 0),
    "checkpoint import": ("{m}/nothing.pth imported.pt", 2),
    "egress": ("{m}/run", 2),
    "project": ("--sites a,b --server host.example.org --out project.yml", 0),
    "join": ("{m}/data --data {m}/data", 2),
    "watch": ("--kit {m}/data id", 2),
    "job export": ("{root}/jobs/fedmepd_brats job", 0),
    "kit": ("{m}/data", 2),
    "doctor": ("{m}/data", 2),
    "compare show": ("{m}/runs --out comparison", 0),
    "compare run": ("{m}/plan.yaml out", 2),
    "export bundle": ("--model {m}/model.pt bundle", 0),
    "export torchscript": ("--model {m}/model.pt model.ts", 0),
    "export onnx": ("--model {m}/model.pt model.onnx", 0),
    "poc prepare": ("--sites site-1 --data {m}/nothing", 2),
    "poc start": ("", 2),
    "poc submit": ("", 2),
    "poc watch": ("id", 2),
    "poc download": ("id", 2),
    "poc stop": ("", 0),
    "poc clean": ("", 2),
    "poc run": ("--data {m}/nothing", 2),
}


def material(folder: Path) -> Path:
    """Writes the data, the model and the runs that the commands need."""
    from tests.segmentation.models import save_tiny

    for name in ("a", "b"):
        write_case(folder / "data", name, ("FLAIR", "T1ce"))
    save_tiny(folder / "model.pt", window=24)
    for method, level in (("fedmepd", 0.6), ("local", 0.4)):
        for seed in (0, 1):
            content = runs.run(method, seed, runs.scores(seed, level=level))
            runs.write(folder / "runs", content, runs.history([0.3, 0.4, 0.5, 0.5]))
    (folder / "run").mkdir()
    (folder / "run" / "results.json").write_text(json.dumps(finished()))
    (folder / "run" / "history.json").write_text("{}")
    (folder / "plan.yaml").write_text("methods: [none]\n")
    return folder


def names(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command of a parser, such as ``data check``."""
    topics = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not topics:
        yield " ".join(path)
    for topic in topics:
        for name, command in topic.choices.items():
            yield from names(command, (*path, name))


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    given, work, *commands = arguments
    os.makedirs(work, exist_ok=True)
    os.chdir(work)
    from fedmepd.cli import main as fedmepd

    for command in commands or COMMANDS:
        line = f"{command} {COMMANDS[command][0].format(m=shlex.quote(given), root=ROOT)}"
        outputs = [io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding) for _ in range(2)]
        raised = ""
        with contextlib.redirect_stdout(outputs[0]), contextlib.redirect_stderr(outputs[1]):
            try:
                status = fedmepd(shlex.split(line))
            except BaseException:
                status, raised = None, traceback.format_exc()
        printed, error = [output.flush() or output.buffer.getvalue().decode("ascii", "replace") for output in outputs]
        report = {"command": command, "status": status, "raised": raised, "printed": printed, "error": error}
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
