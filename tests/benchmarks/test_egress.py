from benchmarks.egress import main


def test_a_row_for_each_width(capsys):
    assert main([4]) == 0
    heads, row = capsys.readouterr().out.splitlines()
    assert "bytes of the line" in heads and row.split()[0] == "4"
    # A line names every tensor with its shape, format, bytes and norm: more than a hundred bytes each.
    tensors, size = int(row.split()[1]), int(row.split()[-1])
    assert 100 * tensors < size < 300 * tensors
