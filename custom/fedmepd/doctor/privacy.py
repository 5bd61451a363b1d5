"""The site's budget of differential privacy for all its runs, and whether the record of it is there."""

from __future__ import annotations

from collections.abc import Iterator

from fedmepd.doctor.checks import Check, Topic
from fedmepd.doctor.federation import Expected
from fedmepd.doctor.kit import Kit
from fedmepd.errors import CheckpointError
from fedmepd.flare.folders import has_had_runs
from fedmepd.privacy.accountant import epsilon
from fedmepd.privacy.ledger import releases_of_all
from fedmepd.privacy.participant import Account
from fedmepd.site_settings import FILE_NAME, SiteSettings
from fedmepd.text_table import counted

_PRIVACY = Topic("privacy")


def check_privacy(kit: Kit, expected: Expected, machine: SiteSettings) -> Iterator[Check]:
    """Says what is spent of the site's own budget; nothing where the site has none.

    Args:
        kit: with the record.
        expected: with the job's settings.
        machine: the site's own settings.
    """
    demanded, fusion = machine.privacy, expected.settings.fusion.site
    if demanded.epsilon is None or (kit.role == "server" and fusion):
        return
    # A hospital that is the fusion site has two: its own patients are not those of fusion training.
    wanted = [kit.role == "server", *([True] if fusion == kit.name else [])]
    files = [file for of_fusion in wanted if (file := Account.file_in(kit.folder, fusion=of_fusion)).is_file()]
    for file in files:
        try:
            runs = releases_of_all(file)
        except CheckpointError as error:
            yield _PRIVACY.error("record that cannot be used", str(error), "the site would refuse every job")
            continue
        spent = epsilon([release for run in runs for release in run], demanded.delta)
        text = f"epsilon {spent:.3g} of {demanded.epsilon:g} at delta {demanded.delta:g} by {counted(len(runs), 'run')}"
        yield _PRIVACY.ok("what is spent", f"{text}, at most {demanded.per_run or demanded.epsilon:g} a run")
    record = Account.folder_in(kit.folder).name
    if not files and has_had_runs(kit.folder):
        yield _PRIVACY.warning(
            "runs, and no record of what they spent",
            f"there is no {record}/ in the kit, so the budget of {demanded.epsilon:g} is whole again",
            f"restore {record}/ from a backup; without differential privacy, nothing limits what these runs revealed",
        )
    elif not files:
        yield _PRIVACY.note(
            "no record yet",
            f"the first run begins it, with a budget of {demanded.epsilon:g}",
            f"if another kit has trained on these patients, take its folder {record}/ along",
        )
    if demanded.per_run is None:
        yield _PRIVACY.note(
            "one run may take all of it",
            f"privacy.per_run is not set in local/{FILE_NAME}",
            "set it to the most that a single run may take, also a trial of one round",
        )
