"""The commands that set up and follow a federation of hospitals: ``fedmepd project``, ``join`` and ``watch``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from shlex import join, quote
from typing import Any

from fedmepd.cli.terminal import FAILED, FAULTY, require_absent
from fedmepd.errors import FedMEPDError, SettingsError

_POLL_SECONDS = 5.0

Command = Callable[[Sequence[str]], int]


def add_federation_commands(topics: argparse._SubParsersAction, command: Command) -> None:
    """Adds them to the parser of ``fedmepd``.

    Args:
        topics: of that parser.
        command: runs another command of ``fedmepd`` and returns its exit status.
    """
    project = topics.add_parser(
        "project",
        help="write the project file of a federation, of which `nvflare provision` makes kits",
        description="Writes the project file of a federation of hospitals: server, sites, admin, lead, and an IT admin "
        "for each hospital. `nvflare provision` makes kits and certificates of it.",
    )
    project.add_argument("--sites", required=True, metavar="A,B,C", help="names of the sites, one for each hospital")
    project.add_argument(
        "--server", required=True, metavar="HOST", help="address at which every hospital can reach the server"
    )
    project.add_argument("--port", type=int, default=8002, help="port of the server; default: 8002")
    project.add_argument(
        "--fusion-site",
        metavar="NAME",
        default="",
        help="the site that has the cases for fusion training; default: the server has them",
    )
    project.add_argument("--name", default="fedmepd", help="name of the project; default: fedmepd")
    project.add_argument(
        "--out", type=Path, default=Path("project.yml"), metavar="FILE", help="file to write; default: project.yml"
    )
    project.set_defaults(run=_project)

    join_ = topics.add_parser(
        "join",
        help="set up a kit in one step: data, settings, checks",
        description="Sets up the kit of a site, of the server or of an admin. Of a site: `fedmepd data init`, `fedmepd "
        "kit` and `fedmepd doctor`, each printed before it runs; with --start the site then starts, if there is no "
        "error. Of the server: `fedmepd kit` and `fedmepd doctor`. Of an admin: FLARE notes the kit under its name, "
        "so that `nvflare job ...` and `fedmepd watch` find it from any folder. Exit status: as of `fedmepd doctor`.",
    )
    join_.add_argument("kit", type=Path, help="folder of the kit")
    join_.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="at a site: its cases, and in the sub-folder fusion, if there is one, those for fusion training; default: "
        "what the kit names already",
    )
    join_.add_argument("--jobs", type=Path, metavar="FOLDER", help="at the server: folder for jobs and results")
    join_.add_argument(
        "--refuse-code",
        action="store_true",
        help="refuse jobs that carry code, no matter who submits; `fedmepd kit --help` says how to take it back",
    )
    join_.add_argument(
        "--withhold",
        nargs="+",
        default=[],
        metavar="MODALITY",
        help="at a site: never send the changes of these modalities' encoders; `fedmepd kit --help` says how to take "
        "it back",
    )
    join_.add_argument("--job", type=Path, help="a job's folder; `fedmepd doctor` checks whether it can run here")
    join_.add_argument("--against", type=Path, metavar="FILE", help="file with the server's versions")
    join_.add_argument("--start", action="store_true", help="start the site or server if no check finds an error")
    join_.set_defaults(run=partial(_join, command))

    watch = topics.add_parser(
        "watch",
        help="report the rounds of a job in a federation until it ends; exit status 1: it failed",
        description="Reports the rounds of a job in a federation until it ends, with mDSC and time left, from any "
        "machine that has the kit of an admin. Exit status 1: the job failed.",
    )
    watch.add_argument("job_id", metavar="ID", help="the id that `nvflare job submit` printed")
    watch.add_argument(
        "--kit",
        metavar="KIT",
        help="an admin's kit: its folder, or its name if `fedmepd join` has noted it; default: the one noted last",
    )
    watch.add_argument(
        "--download", type=Path, metavar="FOLDER", help="at the end, download the results there and print the table"
    )
    watch.add_argument(
        "--json",
        action="store_true",
        help="print an object per line",
    )
    watch.set_defaults(run=_watch)


def _project(options: argparse.Namespace) -> None:
    from fedmepd.flare.project import project_text
    from fedmepd.storage import write_text

    if options.out.exists():
        raise SettingsError(f"{options.out} exists already: name another --out, or move it away")
    sites = [name.strip() for name in options.sites.split(",") if name.strip()]
    text = project_text(sites, options.server, options.port, options.fusion_site, options.name)
    write_text(options.out, text)
    print(f"wrote {options.out}; next: nvflare provision -p {quote(str(options.out))} -w workspace")


def _join(command: Command, options: argparse.Namespace) -> int:
    from fedmepd.flare.kits import ADMIN, SERVER, SITE, kind_of

    kind = kind_of(options.kit)
    for option, value, kinds in (
        ("--data", options.data, SITE),
        ("--withhold", options.withhold, SITE),
        ("--jobs", options.jobs, SERVER),
    ):
        if value and kind != kinds:
            fusion = "; for a server that trains on fusion cases: `fedmepd data init FOLDER --kit KIT`"
            hint = fusion if (option, kind) == ("--data", SERVER) else ""
            raise SettingsError(f"{option} is for the kit of a {kinds}; {options.kit} is one of a {kind}{hint}")
    if kind == ADMIN:
        unused = ("refuse_code", "job", "against", "start")
        require_absent(options, unused, f"{options.kit} is an admin's kit, which is only noted: leave the option out")
        return _join_as_admin(options)
    kit = str(options.kit)
    if options.data:
        _init(command, options.data, kit)
    setting_up = {"--refuse-code": options.refuse_code, "--jobs": options.jobs, "--withhold": options.withhold}
    _shown(command, ["kit", kit, *_words(setting_up)])
    fuses = kind == SITE and _is_fusion_site(options.kit)
    checked = {"--fusion": fuses, "--job": options.job, "--against": options.against}
    status = _shown(command, ["doctor", kit, *_words(checked)])
    if status:
        print("put the errors right, then run `fedmepd join` again", file=sys.stderr)
        return FAULTY
    script = options.kit.absolute() / "startup" / "start.sh"
    if options.start:
        start_kit(script, options.kit.absolute() / "output.txt")
    else:
        print(f"to start it: {quote(str(script))}")
    return 0


def _init(command: Command, data: Path, kit: str) -> None:
    from fedmepd.config import FUSION_SITE
    from fedmepd.data.ownership import has_fusion_folder
    from fedmepd.tasks.find import DEFAULT, find_task

    if has_fusion_folder(find_task(DEFAULT), data):
        _shown(command, ["data", "init", str(data / FUSION_SITE)])
    _shown(command, ["data", "init", str(data), "--kit", kit])


def _is_fusion_site(kit: Path) -> bool:
    """Whether the data of a site's kit include a folder for fusion training."""
    from fedmepd.data.ownership import has_fusion_folder
    from fedmepd.site_settings import SiteSettings
    from fedmepd.tasks.find import DEFAULT, find_task

    data = SiteSettings.load(kit / "local").data
    return data is not None and has_fusion_folder(find_task(DEFAULT), data)


def _words(options: Mapping[str, Any]) -> list[str]:
    """Returns the options that have a value, as words of a command."""
    words = []
    for option, value in options.items():
        if value:
            words += [option, *([] if value is True else map(str, value if isinstance(value, list) else [value]))]
    return words


def _shown(command: Command, words: Sequence[str]) -> int:
    """Runs another of our commands, which is shown before."""
    print(f"$ fedmepd {join(words)}", flush=True)
    status = command(words)
    print(flush=True)
    return status


def start_kit(script: Path, output: Path) -> None:
    """Starts a server or site, which stays when this command and its terminal are gone.

    Args:
        script: the kit's ``start.sh``.
        output: file for what it prints.

    Raises:
        FedMEPDError: the script fails.
    """
    with open(output, "ab") as out:
        started = subprocess.run(
            [script], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    if started.returncode:
        raise FedMEPDError(f"{script} ended with status {started.returncode}: {output} says why")
    print(f"started; what it prints is in {output}, to stop it: {script.with_name('stop_fl.sh')}")


def _join_as_admin(options: argparse.Namespace) -> int:
    from fedmepd.flare.poc.commands import run_flare

    name, folder = options.kit.absolute().name, str(options.kit.absolute())
    run_flare(["config", "add", name, folder, "--force"])
    run_flare(["config", "use", name])
    print(f"{name}: `nvflare job ...` and `fedmepd watch` use this kit now, in any folder")
    return 0


def json_line(event: str, line: str, live: dict[str, Any]) -> str:
    """Returns what ``fedmepd watch --json`` prints of an event: its name, the line about it, the job's live state."""
    return json.dumps({"event": event, "line": line, "state": live})


def _watch(options: argparse.Namespace) -> int:
    from functools import partial

    from fedmepd.cli.poc import show_results
    from fedmepd.flare.admin_session import AdminSession
    from fedmepd.flare.kits import admin_kit
    from fedmepd.flare.poc.commands import run_flare
    from fedmepd.flare.watching import COMPLETED, download, naming_jobs, watch

    kit = None if options.kit is None else admin_kit(options.kit)
    out = options.download
    # A job may take days: what would be refused at its end is refused before.
    if out and (out.is_file() or (out / options.job_id).exists()):
        what = "is a file" if out.is_file() else f"holds job {options.job_id} already"
        raise SettingsError(f"--download {out}: it {what}; choose another folder")

    def tell(event: str, line: str, live: dict) -> None:
        print(json_line(event, line, live) if options.json else line, flush=True)

    def ask(*arguments: str) -> Any:
        return run_flare(arguments, kit=kit)

    with naming_jobs(ask, options.job_id), AdminSession(kit) as session:
        status = watch(session, options.job_id, tell, _POLL_SECONDS)
    if out:
        log = partial(print, file=sys.stderr if options.json else sys.stdout, flush=True)
        folder = download(ask, options.job_id, out.absolute(), log)
        if status == COMPLETED and not options.json:
            show_results(folder)
    if status == COMPLETED:
        return 0
    print(f"the job ended as {status}: `nvflare job download {options.job_id}` fetches its log", file=sys.stderr)
    return FAILED
