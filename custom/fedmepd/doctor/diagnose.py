"""All checks of a site, in the order in which one would fix the problems."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator

from fedmepd.doctor.certificates import check_certificates
from fedmepd.doctor.checks import Check
from fedmepd.doctor.clock import check_clock
from fedmepd.doctor.computer import Computer
from fedmepd.doctor.connection import Answer, check_server
from fedmepd.doctor.federation import Expected
from fedmepd.doctor.kit import Kit
from fedmepd.doctor.machine import check_compute, check_disk
from fedmepd.doctor.privacy import check_privacy
from fedmepd.doctor.rules import check_kit_files, check_rules
from fedmepd.doctor.site_data import Looked, check_data
from fedmepd.doctor.start_script import check_start_script
from fedmepd.doctor.versions import Installed, check_versions
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.find import find_task


def diagnose(
    kit: Kit,
    expected: Expected,
    *,
    ntp: str | None = None,
    seconds: float = 10.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Check]:
    """Checks a site before it joins, or the server before it is started; changes nothing but the cache.

    Args:
        kit: the site's or server's.
        expected: what the federation expects.
        ntp: a time server to compare the clock with; None: the federation's server alone.
        seconds: to wait for each step of a connection.
        progress: called with the number of cases read so far, and of all.

    Raises:
        SettingsError: the kit's ``fedmepd.json`` cannot be used.
    """
    machine = SiteSettings.load(kit.local)
    answer, looked = Answer(), Looked(find_task(expected.settings.task).modalities)
    yield from check_certificates(kit, datetime.datetime.now(datetime.UTC))
    yield from check_kit_files(kit)
    yield from check_server(kit, answer, seconds)
    yield from check_clock(answer, ntp, seconds)
    mine = Installed.here()
    yield from check_versions(mine, expected.versions, answer.python)
    yield from check_start_script(kit, mine)
    yield from check_data(kit.site, expected.settings, machine, looked, progress)
    yield from check_rules(expected, machine, looked)
    yield from check_privacy(kit, expected, machine)
    computer = Computer()
    yield from check_compute(expected, machine, looked, computer)
    yield from check_disk(kit, expected, machine, looked, computer)
