"""The text of numbers in tables and figures."""

import math

ABSENT = "\N{EN DASH}"  # the text of a missing value
MEAN_STD = "mean ± std (ddof=1)"  # what mean_std_text prints, for titles and notes
ONE_LINE, COMPACT, TWO_LINES = " ± ", "±", "\n± "  # separators of mean_std_text


def number_text(value: float, decimals: int, *, sign: bool = False, unit: str = "") -> str:
    """Return a number with a true minus sign, or ``ABSENT`` for NaN. sign: print a plus sign too."""
    if math.isnan(value):
        return ABSENT
    return f"{value:{'+' if sign else ''}.{decimals}f}{unit}".replace("-", "\N{MINUS SIGN}")


def mean_std_text(mean: float, std: float, decimals: int, *, separator: str = ONE_LINE, n: int = 0) -> str:
    """Return "mean ± std", the mean alone if the std is NaN (one seed), or ``ABSENT`` if both are NaN.

    n: the number of seeds, appended unless it is 0.
    """
    text = number_text(mean, decimals)
    if not math.isnan(mean) and not math.isnan(std):
        text += f"{separator}{number_text(std, decimals)}"
    return f"{text} (n={n})" if n else text


def duration_text(seconds: float) -> str:
    """Return a duration with one unit, such as "40 s", "12 min" or "3.4 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
