from __future__ import annotations

import math

import pytest
import torch

from fedmepd.methods.parts.row_sums import add_rounded, row_products

PRECISIONS = [torch.float16, torch.float32, torch.float64]


def draw(*shape: int, precision: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_of_rows(precision: torch.dtype) -> None:
    """Of tensors with one dimension, with rows shorter and longer than the processor's vectors, and without values."""
    for shape in ((5,), (3, 2), (4, 3, 1, 2), (2, 1001), (0, 3), (3, 0)):
        first, second = draw(*shape, precision=precision), draw(*shape, precision=precision, seed=1)
        for one, other in ((first, second), (first.double(), second)):
            found = row_products(one, other)
            assert all(each.dtype == torch.float64 and each.shape == shape[:1] for each in found)
            for row in range(shape[0]):
                x, y = first[row].reshape(-1).tolist(), second[row].reshape(-1).tolist()
                expected = [math.fsum(a * b for a, b in zip(*each, strict=True)) for each in ((x, x), (y, y), (x, y))]
                torch.testing.assert_close([each[row].item() for each in found], expected, rtol=1e-13, atol=1e-13)


def test_squares_larger_than_single_precision_holds() -> None:
    (square,), _, (product,) = row_products(torch.full((1, 4), 3e38), torch.full((1, 4), -3e38))
    assert square == pytest.approx(4 * 9e76) and product == pytest.approx(-4 * 9e76)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounded_products_are_added_where_they_belong(precision: torch.dtype) -> None:
    values, factors = draw(3, 2, 5, precision=precision), torch.tensor([1000.0, -0.5, 7.0], dtype=torch.float64)
    total = torch.arange(40).view(4, 2, 5)
    expected = total.tolist()
    for row, place in enumerate((3, 0, 1)):
        for i in range(2):
            for j in range(5):
                expected[place][i][j] += round(values[row, i, j].item() * factors[row].item())
    add_rounded(total, values, factors, torch.tensor([3, 0, 1]))
    assert total.tolist() == expected


def test_halves_are_rounded_to_even_numbers() -> None:
    total = torch.zeros(1, 6, dtype=torch.int64)
    add_rounded(total, torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5]]), torch.ones(1).double(), torch.tensor([0]))
    assert total.tolist() == [[0, 2, 2, 0, -2, -2]]


def test_transposed_values_are_read_in_their_order() -> None:
    total = torch.zeros(2, 3, dtype=torch.int64)
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).t()
    add_rounded(total, values, torch.ones(2).double(), torch.tensor([0, 1]))
    assert total.tolist() == [[1, 3, 5], [2, 4, 6]]
    squares, _, _ = row_products(values, values)
    assert squares.tolist() == [35, 56]
