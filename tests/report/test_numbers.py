"""Numbers for people keep their significant digits whatever their size, and those of one column have one scale."""

import math

import pytest

from raysp.report.numbers import number, scale


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.44, "+1.44"), (-3.94, "−3.94"), (12.345, "+12.3"), (1234.5, "+1,234"), (0.0123, "+0.0123"), (1.234e-6, "+1.23×10⁻⁶"), (-5e-12, "−5.00×10⁻¹²"),
        (2.5e10, "+2.50×10¹⁰"), (9.999, "+10.0"), (0.0, "0"), (None, "–"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_a_number_by_itself_has_three_significant_digits(value, shown):
    assert number(value) == shown


def test_numbers_of_a_column_have_the_scale_of_its_largest():
    column = [2.5e-6, -1.25e-7, 0.0, None]
    size = scale(column)
    assert size.unit == "×10⁻⁶"
    assert size.titled("Alone") == "Alone, ×10⁻⁶"
    assert [size.show(value) for value in column] == ["+2.500", "−0.125", "0", "–"]
    assert size.interval(-1e-7, 3e-6) == "[−0.100, +3.000]"
    assert size.interval(None, 3e-6) == "–"


def test_ordinary_sizes_are_written_out():
    size = scale([12.34567, -0.5])
    assert size.titled("Alone") == "Alone"
    assert [size.show(value) for value in (12.34567, -0.5)] == ["+12.35", "−0.50"]


def test_a_column_of_nothing_has_a_scale():
    assert scale([]).show(0.0) == "0"
