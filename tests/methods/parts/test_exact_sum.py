from __future__ import annotations

from fractions import Fraction

import torch

from fedmepd.methods.parts.exact_sum import LARGEST_CHANGE, LARGEST_WEIGHT, ExactSum


def test_bits_do_not_depend_on_the_order() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = 10.0 ** torch.randint(-6, 2, (30, 1, 1), generator=generator)
    terms = torch.randn(30, 5, 7, generator=generator) * sizes
    exact, plain = [], []
    for _ in range(8):
        total = ExactSum(torch.Size((5, 7)))
        order = torch.randperm(30, generator=generator).tolist()
        for place in order:
            total.add(terms[place])
        exact.append(total.value())
        plain.append(sum(terms[place] for place in order))
    assert all(torch.equal(value, exact[0]) for value in exact)
    torch.testing.assert_close(exact[0], terms.double().sum(dim=0), rtol=0, atol=1e-9)
    # Floating-point numbers alone would not do.
    assert not all(torch.equal(value, plain[0]) for value in plain)


def test_rows() -> None:
    total = ExactSum(torch.Size((3, 2)))
    total.add(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), rows=torch.tensor([True, False, True]))
    total.add(torch.full((3, 2), 0.5))
    assert total.value().tolist() == [[1.5, 2.5], [0.5, 0.5], [3.5, 4.5]]
    total.add(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([2.0, 10.0]), torch.tensor([False, True, True]))
    assert total.value().tolist() == [[1.5, 2.5], [2.5, 4.5], [33.5, 44.5]]
    total.add(torch.zeros(0, 2), torch.zeros(0), torch.tensor([False, False, False]))
    assert total.value().tolist() == [[1.5, 2.5], [2.5, 4.5], [33.5, 44.5]]


def test_each_term_is_rounded_to_a_multiple_of_a_small_unit() -> None:
    """Tensors of many shapes, some larger than a block, value by value in Python's exact fractions."""
    generator = torch.Generator().manual_seed(1)
    for shape in ((), (7,), (3, 5), (2, 3, 1, 2), (40_000,), (3, 20_000), (700, 50)):
        values, weight = torch.randn(shape, generator=generator), 0.3
        weights = torch.rand(shape[:1], generator=generator, dtype=torch.float64)
        for of_rows in (weight, weights) if shape else (weight,):
            total = ExactSum(torch.Size(shape))
            total.add(values, of_rows)
            total.add(values, of_rows)
            products = values.double() * (
                of_rows.view(-1, *[1] * (len(shape) - 1)) if shape and of_rows is weights else weight
            )
            units = [2 * round(Fraction(product) * 2**36) for product in products.flatten().tolist()]
            assert total.value().flatten().tolist() == [unit / 2**36 for unit in units]


def test_holds_the_largest_terms_of_many_sites() -> None:
    total = ExactSum(torch.Size())
    for _ in range(500):
        total.add(torch.tensor(-LARGEST_CHANGE * LARGEST_WEIGHT))
    assert total.value().item() == -500 * 16 * 16384
