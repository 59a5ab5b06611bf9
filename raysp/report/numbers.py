"""Numbers as people read them: significant digits, and one scale for all numbers that stand in a column."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

#: Significant digits of the largest number of a column.
DIGITS = 4
#: Powers of ten of numbers that are written out; others are multiples of a power of ten.
WRITTEN_OUT = range(-4, 7)
NONE = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Scale:
    """What numbers are multiples of (10 to the `exponent`), and how many decimals they have then."""

    decimals: int
    exponent: int = 0

    @property
    def unit(self) -> str:
        """The power of ten, such as `×10⁻⁶`; empty where numbers are written out."""
        return f"×10{str(self.exponent).translate(_SUPERSCRIPTS)}" if self.exponent else ""

    def show(self, value: float | None, *, signed: bool = True) -> str:
        """A number without its unit and with a true minus sign; a dash where there is none."""
        if value is None or not math.isfinite(value):
            return NONE
        text = f"{value / 10.0**self.exponent:{'+' if signed else ''},.{self.decimals}f}"
        return text.replace("-", "−") if float(text.replace(",", "")) else "0"

    def whole(self, value: float | None, *, signed: bool = True) -> str:
        """A number with its unit."""
        text = self.show(value, signed=signed)
        return text if text in (NONE, "0") else text + self.unit

    def interval(self, lo: float | None, hi: float | None, *, signed: bool = True) -> str:
        """Two numbers in brackets, without their unit; a dash where there is none."""
        if lo is None or hi is None or not (math.isfinite(lo) and math.isfinite(hi)):
            return NONE
        return f"[{self.show(lo, signed=signed)}, {self.show(hi, signed=signed)}]"

    def titled(self, title: str) -> str:
        """A title with the unit of the numbers below it."""
        return f"{title}, {self.unit}" if self.unit else title


def scale(values: Iterable[float | None], digits: int = DIGITS) -> Scale:
    """The scale at which the largest of these numbers has so many significant digits."""
    largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
    # Rounding may carry into another digit: 9.9996 is 10.00 with four digits.
    power = int(f"{largest:.{digits - 1}e}".partition("e")[2]) if largest else 0
    return Scale(max(0, digits - 1 - power)) if power in WRITTEN_OUT else Scale(digits - 1, power)


def number(value: float | None, *, like: float | None = None, signed: bool = True, digits: int = 3) -> str:
    """A number by itself, with its unit, and with as many significant digits (or at the scale that `like` has with as many)."""
    return scale([like or value], digits).whole(value, signed=signed)
