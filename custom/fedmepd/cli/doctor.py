"""The command ``fedmepd doctor``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from fedmepd.cli.tasks import add_task_option, chosen_task
from fedmepd.cli.terminal import FAULTY, progress_bar, require_absent
from fedmepd.errors import SettingsError, plain_text
from fedmepd.text_table import counted

if TYPE_CHECKING:
    from fedmepd.doctor.federation import Expected
    from fedmepd.doctor.kit import Kit


_SECONDS = 10.0


def add_doctor_command(topics: argparse._SubParsersAction) -> None:
    """Adds it to the parser of ``fedmepd``."""
    doctor = topics.add_parser(
        "doctor",
        help="check a site before it joins a federation",
        description="Checks what a site needs before it joins: its kit and certificate, the server over TLS, the "
        "clock, versions, data, GPU, memory and disk. Each check prints a line and what to do; docs/doctor.md explains "
        "them. Exit status: 0 no errors, 1 errors, 2 the checks could not be made.",
    )
    doctor.add_argument("kit", type=Path, help="folder of the FLARE kit of a site or of the server")
    doctor.add_argument("--job", type=Path, help="a job's folder; default: the job in --against, or the preset paper")
    doctor.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="file with the server's versions; default: KIT/local/fedmepd-federation.json",
    )
    doctor.add_argument(
        "--fusion",
        action="store_true",
        help="check the site as the fusion site of the job; default: if the job says so",
    )
    add_task_option(doctor, "the job's, or brats")
    doctor.add_argument("--ntp", metavar="HOST", help="a time server to compare the clock with; default: none")
    doctor.add_argument(
        "--timeout", type=float, metavar="S", help=f"seconds to wait for an answer; default: {_SECONDS:g}"
    )
    doctor.add_argument("--json", action="store_true", help="print the checks as JSON")
    doctor.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="at the server: write its versions and the job to a file for --against, and check nothing; together with "
        "--job alone",
    )
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from fedmepd.doctor.checks import ERROR, WARNING, count
    from fedmepd.doctor.diagnose import diagnose
    from fedmepd.doctor.federation import FILE_NAME
    from fedmepd.doctor.kit import Kit

    seconds = _SECONDS if options.timeout is None else options.timeout
    if not 0 < seconds < 3600:
        raise SettingsError(f"--timeout {seconds}: expected seconds above 0")
    kit = Kit.read(options.kit)
    if options.write:
        unused = ("against", "fusion", "task", "ntp", "timeout", "json")
        require_absent(options, unused, "--write only writes a file, and checks nothing: leave one of the two out")
        return _write(kit, options)
    own = kit.local / FILE_NAME
    federation = options.against or (own if own.is_file() else None)
    checks = []
    with progress_bar("reading", "case") as progress:
        made = diagnose(
            kit,
            _expected(kit, federation, options),
            ntp=options.ntp,
            seconds=seconds,
            progress=progress,
        )
        for check in made:
            checks.append(check)
            if not options.json:
                print("\n".join(check.lines()), flush=True)
    errors, warnings = count(checks, ERROR), count(checks, WARNING)
    if options.json:
        content = {"name": kit.name, "role": kit.role, "errors": errors, "warnings": warnings}
        print(json.dumps({**content, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        print(f"\n{kit.role} {plain_text(kit.name)}: {counted(errors, 'error')}, {counted(warnings, 'warning')}")
    return FAULTY if errors else 0


def _expected(kit: Kit, federation: Path | None, options: argparse.Namespace) -> Expected:
    from fedmepd.doctor.federation import expected

    known = expected(federation, options.job, chosen_task(options).name)
    if options.task not in (None, known.settings.task):
        raise SettingsError(f"--task {options.task}: the settings of {known.source} are of task {known.settings.task}")
    return known.with_fusion_at(kit) if options.fusion else known


def _write(kit: Kit, options: argparse.Namespace) -> int:
    from fedmepd.doctor.federation import FILE_NAME, write_federation

    if kit.role != "server":
        raise SettingsError(f"--write: {options.kit} is a site's kit: the server's versions count, write them there")
    write_federation(options.write, kit.project, options.job)
    print(
        f"wrote {options.write}; at a site: fedmepd doctor KIT --against {quote(options.write.name)}, or without the "
        f"option once it is KIT/local/{FILE_NAME}"
    )
    return 0
