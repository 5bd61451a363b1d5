"""`fedmepd methods`: what it prints is what the files of the methods say."""

from __future__ import annotations

import pytest

from fedmepd import methods
from fedmepd.cli import main


def blocks(text: str) -> tuple[list[str], list[str]]:
    """The lines of the table of methods, and those after it."""
    table, _, rest = text.partition("\n\n")
    return table.splitlines(), rest.splitlines()


def test_a_row_for_every_method(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods"]) == 0
    table, rest = blocks(capsys.readouterr().out)
    assert table[0].split() == ["name", "title", "paper", "shared", "personal", "fusion", "data"]
    assert [line.split()[0] for line in table[2:] if not line.startswith(" ")] == methods.names()
    assert rest == []
    # Written out by hand.
    [fedavg] = [line for line in table if line.startswith("fedavg ")]
    for cell in ("FedAvg", "McMahan et al.,", "the whole network", "nothing", "trains in every"):
        assert f"  {cell}" in fedavg
    assert max(map(len, table)) <= 120


def test_a_method_with_its_own_settings_alone(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods", "fusion_only"]) == 0
    table, rest = blocks(capsys.readouterr().out)
    assert [line.split()[0] for line in table[2:] if not line.startswith(" ")] == ["fusion_only"]
    assert rest[0].startswith("Fusion only: the network is trained at the fusion site alone")
    assert "Exchanged: the sites receive the encoders of their modalities and the decoder, and return nothing." in rest
    start = rest.index(next(line for line in rest if line.startswith("setting ")))
    assert rest[start].split() == ["setting", "preset", "paper", "preset", "phantom", "description"]
    [row] = rest[start + 2 :]
    assert row.split()[:3] == ["training.modality_dropout", "true", "true"]
    assert row.endswith("  train on a random non-empty subset of the modalities in each step")


def test_defaults_of_both_presets(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods", "fedmepd"]) == 0
    rows = {line.split()[0]: line.split()[1:3] for line in capsys.readouterr().out.splitlines() if line.split()}
    assert rows["calibration.residual"] == ["false", "true"]
    assert rows["personalization.patience"] == ["10", "4"]
    assert rows["aggregation.server_share"] == ["0.3", "0.3"]
    # A setting that every method has is not its own.
    assert not {"rounds", "aggregation.min_sites", "method", "training.modality_dropout"} & set(rows)


def test_a_method_without_settings_says_so(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods", "local"]) == 0
    assert capsys.readouterr().out.endswith("\n\nThis method has no settings of its own.\n")


def test_an_unknown_method(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        main(["methods", "fedmean"])
    assert end.value.code == 2
    assert "invalid choice: 'fedmean'" in capsys.readouterr().err
