from __future__ import annotations

from pathlib import Path

import pytest

from fedmepd.errors import CheckpointError
from fedmepd.privacy.ledger import releases_of_all


def test_a_link_that_leads_nowhere_is_no_fresh_budget(tmp_path: Path) -> None:
    file = tmp_path / "privacy.json"
    assert releases_of_all(file) == []
    file.symlink_to(tmp_path / "gone" / "privacy.json")
    with pytest.raises(CheckpointError, match="a link that leads nowhere: expected a file: restore it"):
        releases_of_all(file)
