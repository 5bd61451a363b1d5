"""Stands in for Slurm on this machine, as far as FLARE's launcher uses it: sbatch, squeue, sacct and scancel.

A script named after the command runs this file with the command's name and its arguments. Jobs are folders in ``jobs``
beside this file: what was asked for, the process, and its exit status once it has ended.
"""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

JOBS = Path(__file__).with_name("jobs")


def value(arguments: list[str], option: str, default: str = "") -> str:
    return next((one.partition("=")[2] for one in arguments if one.startswith(f"--{option}=")), default)


def sbatch(arguments: list[str]) -> None:
    """Starts the script without the environment, as --export=NIL says, and prints the job's number."""
    number = len(list(JOBS.iterdir())) + 1
    folder = JOBS / str(number)
    folder.mkdir()
    (folder / "asked.json").write_text(json.dumps(arguments))
    output = value(arguments, "output").replace("%j", str(number))
    variables = {"SLURM_JOB_ID": str(number), "SLURM_CPUS_PER_TASK": "1", "PATH": os.defpath}
    with open(output, "w") as out:
        process = subprocess.Popen(
            ["sh", "-c", 'bash "$1"; echo $? > "$2.part"; mv "$2.part" "$2"', "sh", arguments[-1], folder / "status"],
            cwd=value(arguments, "chdir"),
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (folder / "process").write_text(str(process.pid))
    print(number)


def squeue(arguments: list[str]) -> None:
    """One line for each job that runs, in the format that FLARE asks for."""
    for folder in sorted(JOBS.iterdir()):
        asked = json.loads((folder / "asked.json").read_text())
        if not (folder / "status").exists() and value(asked, "job-name") == value(arguments, "name"):
            print(
                "|".join([folder.name, "RUNNING", str(os.getuid()), value(asked, "comment"), value(asked, "job-name")])
            )


def sacct(arguments: list[str]) -> None:
    """One line for each job that has ended."""
    for number in filter(None, value(arguments, "jobs").split(",")):
        folder = JOBS / number
        if (folder / "status").exists():
            status = int((folder / "status").read_text())
            asked = json.loads((folder / "asked.json").read_text())
            state = "FAILED" if status else "COMPLETED"
            print("|".join([number, value(asked, "job-name"), getpass.getuser(), state, f"{status}:0", "0:0"]))


def scancel(arguments: list[str]) -> None:
    """Ends jobs."""
    for number in arguments:
        if number.isdigit() and not (JOBS / number / "status").exists():
            os.killpg(int((JOBS / number / "process").read_text()), signal.SIGTERM)


if __name__ == "__main__":
    JOBS.mkdir(exist_ok=True)
    {"sbatch": sbatch, "squeue": squeue, "sacct": sacct, "scancel": scancel}[sys.argv[1]](sys.argv[2:])
