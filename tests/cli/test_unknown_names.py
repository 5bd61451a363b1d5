"""A name that is misspelt is answered with the one that is there, in every command that takes one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmepd.cli import main

ROOT = Path(__file__).parents[2]
JOB = str(ROOT / "jobs" / "fedmepd_brats")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what a user may mean."""
    for folder in ("workspace", "site-1/startup", "site-1/local"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "site-1/startup/fed_client.json").write_text("{}")
    (tmp_path / "site-1/local/authorization.json").write_text(
        '{"format_version": "1.0", "permissions": {"lead": "any"}}'
    )
    for file in ("plan.yaml", "model_best.pt"):
        (tmp_path / file).write_text("methods: [local]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("tasks brat", "brats"),
        ("results worksapce", "workspace"),
        ("report worksapce", "workspace"),
        ("compare show worksapce", "workspace"),
        ("compare run plan.yml out", "plan.yaml"),
        ("kit site1", "site-1"),
        ("kit site-1 --withhold FLIR", "FLAIR"),
        ("kit site-1 --withhold FLAIR,T1", "FLAIR and T1, each by itself"),
        ("join site1", "site-1"),
        ("doctor site1", "site-1"),
        ("egress site1", "site-1"),
        ("data init workspace --kit site1", "site-1"),
        ("project --sites site-1,site-2 --server host.org --fusion-site site1", "site-1"),
        ("predict --model model_bst.pt workspace --out out", "model_best.pt"),
        ("checkpoint show model_bst.pt", "model_best.pt"),
        (f"job export {JOB}s out", JOB),
        (f"job export {JOB} out --fusion-site site_1", "site-1"),
        ("data check workspace --task brat", "brats"),
        ("data check worksapce", "workspace"),
    ],
)
def test_what_was_meant(command: str, meant: str, here: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(command.split()) == 2
    assert f"did you mean {meant}" in capsys.readouterr().err
