"""Quantities for people: three digits and a unit."""

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(value: float) -> str:
    """E.g. 101120 as "101 k"."""
    for size, unit in _STEPS:
        # What rounds up to the next unit is written in it.
        if abs(value) >= size * 0.9995:
            return f"{_three_digits(value / size)} {unit}"
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes in decimal units, e.g. "30.7 kB"."""
    text = count(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def seconds(value: float) -> str:
    """E.g. "0.29 ms", "4.1 s", "3 min 20 s"."""
    if value >= 119.5:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if value >= 1:
        return f"{_three_digits(value)} s"
    if value >= 1e-3:
        return f"{_three_digits(1e3 * value)} ms"
    return f"{1e6 * value:.0f} µs"


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
