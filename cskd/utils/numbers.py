"""The text of numbers in tables and figures."""

import math

ABSENT = "\N{EN DASH}"  # the text of a missing value
MEAN_STD = "Mean ± std (ddof=1)"  # what mean_std_text prints, for the notes of tables


def number_text(value: float, decimals: int, *, sign: bool = False, unit: str = "") -> str:
    """Return a number with a true minus sign, or ``ABSENT`` for NaN. sign: print a plus sign too."""
    if math.isnan(value):
        return ABSENT
    return f"{value:{'+' if sign else ''}.{decimals}f}{unit}".replace("-", "\N{MINUS SIGN}")


def mean_std_text(mean: float, std: float, decimals: int, *, compact: bool = False) -> str:
    """Return "mean ± std", the mean alone if the std is NaN (one seed), or ``ABSENT`` if both are NaN."""
    text = number_text(mean, decimals)
    if math.isnan(mean) or math.isnan(std):
        return text
    return f"{text}{'±' if compact else ' ± '}{number_text(std, decimals)}"
