"""The command line ``fedmepd``. ``fedmepd --help`` lists its commands.

Every command imports what it needs when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fedmepd import __version__
from fedmepd.cli.compare import add_compare_run_command
from fedmepd.cli.compare_show import add_compare_show_command
from fedmepd.cli.data import add_data_commands
from fedmepd.cli.doctor import add_doctor_command
from fedmepd.cli.egress import add_egress_command
from fedmepd.cli.evaluate import add_evaluate_command
from fedmepd.cli.export import add_export_commands
from fedmepd.cli.federation import add_federation_commands
from fedmepd.cli.kit import add_kit_command
from fedmepd.cli.methods import add_methods_command
from fedmepd.cli.parser import Parser
from fedmepd.cli.poc import add_poc_commands
from fedmepd.cli.predict import add_predict_command
from fedmepd.cli.report import add_report_command
from fedmepd.cli.tasks import add_tasks_command
from fedmepd.cli.terminal import INTERRUPTED, guarded_output, interruptible, refuse, showing_the_log
from fedmepd.errors import FedMEPDError, SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    0, or the command's own; 2 when the user can put something right; 130 when the user interrupts or terminates it.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not stop a command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with guarded_output(), showing_the_log():
        return _run_command(arguments)


def _run_command(arguments: Sequence[str] | None) -> int:
    try:
        with interruptible():
            status = _run(arguments)
            sys.stdout.flush()
            return status
    except (FedMEPDError, OSError) as error:
        return refuse("fedmepd", error)
    except KeyboardInterrupt:
        print("fedmepd: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    options = build_parser().parse_args(arguments)
    return options.run(options) or 0


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    parser = Parser(
        prog="fedmepd",
        description="Federated segmentation across sites with different modalities; by default of brain tumours, as in "
        "BraTS.",
    )
    parser.add_argument("--version", action="version", version=f"fedmepd {__version__}")
    topics = parser.add_subparsers(required=True, metavar="command")

    results = topics.add_parser("results", help="print the results of a run, finished or not")
    results.add_argument("workspace", type=Path, help="workspace of a simulator, a downloaded job, or a run folder")
    results.add_argument("--json", action="store_true", help="print results.json instead of the table")
    results.set_defaults(run=_results)

    add_report_command(topics)
    add_predict_command(topics)
    add_evaluate_command(topics)
    add_methods_command(topics)
    add_tasks_command(topics)

    checkpoint = _topic(topics, "checkpoint", "look at models and bring in published ones")
    import_ = checkpoint.add_parser("import", help="turn a checkpoint published by FedMEPD's authors into a model")
    import_.add_argument("published", type=Path, help="a checkpoint of the authors, from the server or from a client")
    import_.add_argument("out", type=Path, help="model file to write")
    import_.set_defaults(run=_import_checkpoint)
    show = checkpoint.add_parser("show", help="print how a model was trained")
    show.add_argument("model", type=Path, help="a model file of this package")
    show.set_defaults(run=_show_checkpoint)

    job = _topic(topics, "job", "prepare FLARE jobs")
    export = job.add_parser(
        "export",
        help="copy a job together with this package, or without any code",
        description="Copies a job together with this package, for sites that have not installed the package.",
    )
    export.add_argument("job_folder", type=Path, help="a folder of jobs/, or what `job.py --export` wrote")
    export.add_argument("out", type=Path, help="folder to write")
    export.add_argument(
        "--without-code",
        action="store_true",
        help="leave out all code, for servers and sites that use the installed package (`fedmepd kit`)",
    )
    export.add_argument(
        "--all-sites", action="store_true", help="deploy the job to all connected sites; default: those that it names"
    )
    export.add_argument(
        "--fusion-site",
        metavar="NAME",
        default="",
        help="the site that has the fusion data and trains on them; default: what the job says",
    )
    export.add_argument(
        "--tracking",
        choices=("mlflow", "wandb"),
        default="",
        help="let the server send the curves to this experiment tracker too, which has to be installed there",
    )
    export.add_argument(
        "--tracking-uri",
        default="",
        metavar="URI",
        help="with --tracking mlflow: address of its server; default: a file mlflow.db beside the job's results",
    )
    export.set_defaults(run=_export_job)

    add_kit_command(topics)
    add_federation_commands(topics, _run)

    add_poc_commands(_topic(topics, "poc", "run a federation of real processes on this machine"))

    data = _topic(topics, "data", "look at data, and make sites of it")
    add_data_commands(data)

    compare = _topic(topics, "compare", "compare methods on the same cases")
    add_compare_run_command(compare)
    add_compare_show_command(compare)

    add_doctor_command(topics)
    add_egress_command(topics)
    add_export_commands(_topic(topics, "export", "write a model for MONAI bundles, TorchScript or ONNX"))
    return parser


def _topic(topics: argparse._SubParsersAction, name: str, help: str) -> argparse._SubParsersAction:
    return topics.add_parser(name, help=help).add_subparsers(required=True, metavar="command")


def _results(options: argparse.Namespace) -> None:
    from fedmepd.cli.runs import chosen_run
    from fedmepd.evaluation.results import read
    from fedmepd.evaluation.tables import console_table

    results = read(chosen_run(options.workspace))
    print(json.dumps(results, indent=2) if options.json else console_table(results), end="\n" if options.json else "")


def _import_checkpoint(options: argparse.Namespace) -> None:
    from fedmepd.networks.published import import_published
    from fedmepd.training.checkpoints import About, save_model

    published = import_published(options.published)
    if options.out.exists():
        raise FedMEPDError(f"{options.out} exists already: choose another name")
    owner = "a published client" if published.calibrated else "the published server"
    save_model(options.out, published.network, About(owner, "fedmepd", published.round))
    print(f"wrote {options.out}")


def _show_checkpoint(options: argparse.Namespace) -> None:
    from fedmepd.training.checkpoints import describe

    print(json.dumps(describe(options.model), indent=2))


def _export_job(options: argparse.Namespace) -> None:
    from fedmepd.flare.export import export_job

    if options.tracking_uri and not options.tracking:
        raise SettingsError(f"--tracking-uri {options.tracking_uri}: say --tracking mlflow too")
    export_job(
        options.job_folder,
        options.out,
        with_code=not options.without_code,
        all_sites=options.all_sites,
        fusion_site=options.fusion_site,
        tracking=options.tracking,
        tracking_uri=options.tracking_uri,
    )
    print(f"wrote {options.out}")
