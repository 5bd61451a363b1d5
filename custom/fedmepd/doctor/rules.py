"""What the site has decided for itself: which jobs it runs, whether the job is within its limits, and what stays."""

from __future__ import annotations

from collections.abc import Iterator

from fedmepd.doctor.checks import Check, Topic
from fedmepd.doctor.federation import Expected
from fedmepd.doctor.kit import Kit
from fedmepd.doctor.site_data import Looked
from fedmepd.errors import SettingsError
from fedmepd.flare.kits import KitSettings
from fedmepd.site_settings import FILE_NAME, SiteSettings
from fedmepd.training.memory_needs import memory_need

_KIT, _LIMITS, _LEAVING = Topic("kit"), Topic("limits"), Topic("leaving")


def check_kit_files(kit: Kit) -> Iterator[Check]:
    """Reads the files in which the kit's owner has decided something, as FLARE will.

    Looks for names with which jobs could do anything, as `fedmepd kit` of an older version allowed them.

    Args:
        kit: of a site or of the server.
    """
    try:
        settings = KitSettings(kit.folder)
        settings.require_readable()
    except SettingsError as error:
        yield _KIT.error("file that cannot be used", str(error), "after that, check again")
        return
    if too_much := settings.too_much():
        text = f"local/resources.json allows {', '.join(too_much)}"
        yield _KIT.error("jobs without code may do too much", text, f"run `fedmepd kit {kit.folder}` once more")


def check_rules(expected: Expected, machine: SiteSettings, looked: Looked) -> Iterator[Check]:
    """Compares the job with the site's limits, and says what will not leave the site.

    Args:
        expected: with the job's settings.
        machine: the site's own settings.
        looked: how many cases it has.
    """
    try:
        machine.limits.check(expected.settings)
        if looked.networks:
            machine.limits.check_memory(memory_need(expected.settings, looked.modalities))
        yield _LIMITS.ok("the job is within them", machine.limits.describe())
    except SettingsError as error:
        advice = f"ask for a smaller job, or raise the limit in the kit's local/{FILE_NAME}"
        yield _LIMITS.error("the job asks for more", error.public, advice)
    fewest = machine.min_count
    yield _LEAVING.ok("decided", machine.disclosure().describe())
    usual = SiteSettings.model_fields["min_count"].default
    if fewest < usual and machine.data is not None:
        yield _LEAVING.warning(
            "means over very few patients leave",
            f"min_count is {fewest}" + (": a score or loss may be a single patient's" if fewest == 1 else ""),
            f"leave min_count out of local/{FILE_NAME}, so that it is {usual}, or set a higher one",
        )
    few = {part: count for part, count in looked.parts.items() if 0 < count < fewest}
    if few:
        told = ", ".join(f"{part} {count}" for part, count in few.items())
        yield _LEAVING.note(
            "means that stay, over too few patients",
            f"{told}; min_count is {fewest}",
            "the site sees them itself, the federation does not; more patients or a lower min_count would change that",
        )
