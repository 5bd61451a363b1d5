"""The commands ``fedmepd poc ...``: a federation of real processes on one machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from fedmepd.cli.settings_options import add_set_option, changes
from fedmepd.cli.terminal import FAILED, INTERRUPTED

if TYPE_CHECKING:
    from fedmepd.flare.poc.workspace import Poc, UnfinishedRun

_DEFAULT_JOB = Path("jobs/fedmepd_brats")
# Settings that have an option of their own.
_OPTIONS = {"rounds": "--rounds", "run_name": "--run-name", "fusion.site": "--fusion-site"}
_SITES = [f"site-{number}" for number in range(1, 9)]


def add_poc_commands(poc: argparse._SubParsersAction) -> None:
    """Adds them to the parser of ``fedmepd poc``."""
    run = _command(
        poc,
        "run",
        "prepare, start, submit a job, watch it, download its results, stop: all in one; exit status 1: the job failed",
        _run,
    )
    _add_job(run)
    run.add_argument("--rounds", type=int, help="rounds of training; default: those of the job")
    run.add_argument(
        "--run-name",
        metavar="NAME",
        help="name of the run, which can then go on after an interruption; without JOB and settings, the command goes "
        "on with a named run that is not finished",
    )
    add_set_option(run)
    _add_sites(run)
    run.add_argument("--out", type=Path, help="folder for the results; default: results in the workspace")

    prepare = _command(poc, "prepare", "make a kit for the server and every site, and give each its data", _prepare)
    _add_sites(prepare)
    _command(poc, "start", "start the server and all sites", lambda options: _poc(options).start())
    submit = _command(poc, "submit", "submit a job and print its id", _submit)
    _add_job(submit)
    watch = _command(poc, "watch", "report the rounds of a job until it ends; exit status 1: it failed", _watch)
    watch.add_argument("job_id", help="the id that `fedmepd poc submit` printed")
    download = _command(poc, "download", "download the results of a job and print its table", _download)
    download.add_argument("job_id", help="the id that `fedmepd poc submit` printed")
    download.add_argument("--out", type=Path, help="folder for the results; default: results in the workspace")
    _command(
        poc,
        "stop",
        "stop the server, all sites and the processes that they have started",
        lambda options: _poc(options).stop(),
    )
    _command(poc, "clean", "remove the workspace, including the sites' models", lambda options: _poc(options).clean())


def _command(topics: argparse._SubParsersAction, name: str, help: str, run) -> argparse.ArgumentParser:
    parser = topics.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    parser.add_argument(
        "--workspace", type=Path, default=Path("workspace_poc"), help="folder for everything; default: workspace_poc"
    )
    parser.set_defaults(run=run)
    return parser


def _add_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", type=Path, nargs="?", help=f"a job's folder; default: {_DEFAULT_JOB}")


def _add_sites(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sites", nargs="+", metavar="NAME", help="names of the sites; default: site-1 to site-8")
    parser.add_argument(
        "--data", type=Path, help="folder with one sub-folder per site and one named fusion; default: phantoms"
    )
    parser.add_argument(
        "--fusion-site",
        metavar="NAME",
        help="the site that has the fusion data and trains on them, besides its own cases; default: the server",
    )
    parser.add_argument("--port", type=int, help="port of the server; admins use the next one; default: free ports")
    parser.add_argument(
        "--everywhere", action="store_true", help="listen on all addresses of the machine; default: loopback only"
    )


def _poc(options: argparse.Namespace) -> Poc:
    from fedmepd.flare.poc.workspace import Poc

    return Poc(options.workspace, lambda line: print(line, flush=True))


def _prepare(options: argparse.Namespace) -> None:
    _prepare_kits(_poc(options), options)


def _prepare_kits(poc: Poc, options: argparse.Namespace) -> None:
    poc.prepare(
        options.sites or _SITES,
        options.data,
        port=options.port,
        everywhere=options.everywhere,
        fusion_site=options.fusion_site or "",
    )


def _submit(options: argparse.Namespace) -> None:
    _poc(options).submit(options.job or _DEFAULT_JOB)


def _watch(options: argparse.Namespace) -> int:
    from fedmepd.flare.watching import COMPLETED

    status = _poc(options).watch(options.job_id)
    if status == COMPLETED:
        return 0
    print(f"the job ended as {status}: `fedmepd poc download {options.job_id}` fetches its log", file=sys.stderr)
    return FAILED


def _download(options: argparse.Namespace) -> None:
    poc = _poc(options)
    show_results(poc.download(options.job_id, _out(poc, options)))


def _out(poc: Poc, options: argparse.Namespace) -> Path:
    return (options.out or poc.workspace / "results").absolute()


def show_results(folder: Path) -> None:
    """Prints the table of a downloaded job."""
    from fedmepd.evaluation.results import find, read
    from fedmepd.evaluation.tables import console_table

    print(console_table(read(find(folder))), end="")


def _run(options: argparse.Namespace) -> int:
    from fedmepd.flare.export import change_settings

    poc = _poc(options)
    changed = _changes(options)
    if changed:
        # Before kits and phantoms are made.
        change_settings(options.job or _DEFAULT_JOB, changed, write=False)
    # Whatever runs there already is not stopped.
    with poc.alone():
        run = None
        try:
            if poc.jobs() or poc.unfinished():
                # What earlier jobs have left stays: the next one uses the same kits.
                poc.require_fit(options.sites, options.data, options.fusion_site, options.port, options.everywhere)
            else:
                _prepare_kits(poc, options)
            job = options.job or _DEFAULT_JOB
            run = None if options.job or changed else poc.unfinished()
            if run:
                poc.log(f"goes on with run {run.name!r}, which is not finished")
            else:
                run = poc.keep_job(job, changed)
            return _run_job(poc, job, changed, run, options)
        except KeyboardInterrupt:
            print(f"interrupted: everything is stopped; {_how_to_go_on(poc, run)}", file=sys.stderr, flush=True)
            return INTERRUPTED
        finally:
            poc.stop()


def _run_job(
    poc: Poc, job: Path, changed: dict[str, Any], run: UnfinishedRun | None, options: argparse.Namespace
) -> int:
    from fedmepd.flare.watching import COMPLETED

    poc.start()
    job_id = poc.submit(run.job) if run else poc.submit(job, changed)
    status = poc.watch(job_id)
    folder = poc.download(job_id, _out(poc, options))
    if status != COMPLETED:
        status = _explain(status, folder / "workspace" / "log.txt")
        print(_how_to_go_on(poc, run), file=sys.stderr)
        return status
    if run:
        poc.finish(run)
    show_results(folder)
    print(f"the sites' models are in {poc.kit('*') / (_models(run) if run else Path(job_id) / 'fedmepd')}")
    return 0


def _models(run: UnfinishedRun) -> Path:
    return Path("fedmepd_runs", run.name, "*")


def _how_to_go_on(poc: Poc, run: UnfinishedRun | None) -> str:
    if run:
        return f"`fedmepd poc run --workspace {quote(str(poc.workspace))}` goes on with run {run.name!r}"
    return "a run that is to go on later needs a --run-name"


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that the options change in the job."""
    # The sites' folders are made before the job is known.
    cohort = "--data FOLDER; `fedmepd data phantom FOLDER --cohort` writes any cohort"
    nested = changes(options.set, {"method": "another JOB", "data.phantom": cohort, **_OPTIONS})
    for key, value in (("rounds", options.rounds), ("run_name", options.run_name)):
        if value is not None:
            nested[key] = value
    return nested


def _explain(status: str, log: Path) -> int:
    """Prints why a job failed, as far as the server's log shows it; returns the exit status."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    reasons = [line for line in lines if " - ERROR - " in line]
    print("\n".join([*reasons[-3:], f"the job ended as {status}: its log is {log}"]), file=sys.stderr)
    return FAILED
