"""The command ``fedmepd kit``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from fedmepd.cli.tasks import add_task_option, chosen_task
from fedmepd.cli.terminal import require_absent
from fedmepd.errors import LONGEST_MESSAGE, plain_text


def add_kit_command(topics: argparse._SubParsersAction) -> None:
    """Adds it to the parser of ``fedmepd``."""
    kit = topics.add_parser(
        "kit",
        help="set up the FLARE kit of a server or site for this package",
        description="Sets up a kit so that jobs without code can use the installed package, and writes the decisions "
        "of this server or site into the kit's folder local. What was decided before and is not named stays. Each time "
        "it prints all that holds, which takes effect when the kit is next started.",
    )
    kit.add_argument("kit", type=Path, help="the kit's folder")
    kit.add_argument(
        "--refuse-code",
        action="store_true",
        help="refuse jobs that carry code, no matter who submits them. To take it back: delete "
        "local/authorization.json in the kit, which also holds what you have changed there by hand, and run this "
        "command again",
    )
    kit.add_argument(
        "--withhold",
        nargs="+",
        metavar="MODALITY",
        help="for a site: never send the changes of these modalities' encoders. To take it back: delete "
        "local/privacy.json in the kit",
    )
    add_task_option(kit, "brats; with --withhold, whose modalities are the task's")
    kit.add_argument(
        "--jobs",
        type=Path,
        metavar="FOLDER",
        help="for the server: folder for jobs and results, in its sub-folder jobs; its sub-folder snapshots is for "
        "what FLARE notes of running jobs",
    )
    kit.set_defaults(run=_kit)


def _kit(options: argparse.Namespace) -> None:
    from fedmepd.flare.kit_state import describe
    from fedmepd.flare.kits import KitSettings
    from fedmepd.site_settings import VARIABLES, SiteSettings

    if not options.withhold:
        require_absent(options, ("task",), "it says whose modalities --withhold names: expected both or neither")
    kit = KitSettings(options.kit)
    # First what may be refused, so that nothing is left half done.
    machine = SiteSettings.load(kit.local, cache_needed=False)
    kit.require_readable()
    written = []
    if options.withhold:
        written.append(kit.withhold(chosen_task(options), options.withhold))
    if options.jobs:
        written.append(kit.keep_jobs(options.jobs))
    written.append(kit.set_up())
    if not kit.is_server:
        written.append(kit.hide_files())
    if options.refuse_code:
        written.append(kit.refuse_code())
    print("\n".join(f"wrote {path}" for path in dict.fromkeys(written)))
    print(f"what holds in {options.kit} from its next start on:")
    for subject, state in describe(kit, machine):
        # Others may have written into the kit's files.
        print(f"  {subject:<18} {plain_text(state, LONGEST_MESSAGE)}")
    if variables := [name for name in VARIABLES.values() if os.environ.get(name)]:
        names = ", ".join(variables)
        print(
            f"this shell sets {names}, which wins over fedmepd.json: a kit that is started elsewhere does not have it"
        )
