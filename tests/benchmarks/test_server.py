from __future__ import annotations

import json

import torch

from benchmarks import measure, server


def test_product_and_straightforward_agree_in_any_order(tmp_path):
    assert server.check(tmp_path, sites=5, width=4) < 1e-7


def test_straightforward_average():
    """Encoders: mean of those that have it. Decoder: 0.3 of the mean's way is left out."""
    start = {"encoders.T1.a": torch.tensor([1.0]), "encoders.T2.a": torch.tensor([1.0]), "decoder.b": torch.zeros(1)}
    updates = [
        {"encoders.T1.a": torch.tensor([0.5]), "decoder.b": torch.tensor([1.0])},
        {key: torch.tensor([1.5]) for key in start} | {"decoder.b": torch.tensor([3.0])},
    ]
    found = server.average(start, updates, server_share=0.3)
    assert found["encoders.T1.a"].item() == 2 and found["encoders.T2.a"].item() == 2.5
    torch.testing.assert_close(found["decoder.b"], torch.tensor([1.4]))


def test_updates_are_new_at_every_call_and_the_same(tmp_path):
    waiting = server.Round(tmp_path, sites=2, width=4)
    first, again = list(waiting.updates()), list(waiting.updates(backwards=True))[::-1]
    for (site, tensors), (other, others) in zip(first, again, strict=True):
        assert site == other
        for key, value in tensors.items():
            assert torch.equal(value, others[key]) and torch.equal(value, value.half().float())
            assert value.data_ptr() != others[key].data_ptr()
    assert not torch.equal(first[0][1]["decoder.classify.weight"], first[1][1]["decoder.classify.weight"])


def test_messages_change_nothing(tmp_path):
    """What is sent in half precision has been rounded to it before; the bytes are two a weight, and little around."""
    plain, sent = server.Round(tmp_path / "plain", sites=2, width=4), server.Round(tmp_path / "sent", sites=2, width=4)
    plain.play()
    spent = sent.play_with_messages()
    for key, value in plain.weights().items():
        torch.testing.assert_close(value, sent.weights()[key], rtol=0, atol=2e-6)
    weights = sum(tensor.numel() for _, tensors in plain.updates() for tensor in tensors.values())
    assert 2 * weights < spent["up"] < 2.2 * weights and spent["down"] > 2 * weights
    assert min(spent[key] for key in ("write", "read", "accept", "finish")) > 0


def test_a_later_round_follows(tmp_path):
    waiting = server.Round(tmp_path, sites=2, width=4)
    spent = waiting.play_two()
    assert waiting.server.round == 2 and spent["later"] > 0


def test_many_sites_without_straightforward(tmp_path, monkeypatch):
    def measured(prepare, folder, *_):
        folder.mkdir()
        return measure.Run(RESULT, 1.0, 100.0, 150.0)

    monkeypatch.setattr(measure, "in_fresh_process", measured)
    few, many = server.run([256, 1000], 4, 1, 1, {})
    assert few["straightforward"]["seconds"]["median"] == 3.0 and many["straightforward"] is None
    printed = server._table([few, many])
    assert printed.splitlines()[-1].count(" - ") == 3


RESULT = {"write": 0.5, "down": 1.0, "read": 0.5, "up": 1.0, "accept": 1.0, "finish": 2.0, "later": 2.5}


def test_report(tmp_path, monkeypatch, capsys):
    """Every run holds 100 MiB, and 50 more for each site at its peak."""

    def in_this_process(prepare, folder, sites, width, threads, means):
        return measure.Run(prepare(folder, sites, width, threads, means)(), 1.0, 100.0, 100.0 + 50 * sites)

    monkeypatch.setattr(measure, "in_fresh_process", in_this_process)
    server.main(["--quick", "--sites", "2", "1", "--json", str(tmp_path / "server.json")])
    report = json.loads((tmp_path / "server.json").read_text())
    assert [row["sites"] for row in report["rows"]] == [1, 2]
    for row in report["rows"]:
        for name in ("product", "straightforward"):
            found = row[name]
            assert found["above_base_mib"]["median"] == 50 * row["sites"]
            whole = found["accept_seconds"]["median"] + found["finish_seconds"]["median"]
            assert found["seconds"]["median"] == whole > 0
            assert found["seconds_per_update"]["median"] == whole / row["sites"]
        assert row["product"]["accept_seconds"]["median"] > 0
    printed = capsys.readouterr().out
    assert "Peaks of memory are 33.3% apart; target 10%: MISSED" in printed and "From 1 to 2 sites" in printed
