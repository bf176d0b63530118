"""How a report writes numbers."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def format_bytes(count: float) -> str:
    """Write a number of bytes with three digits and a binary prefix: 1536 is 1.50 KiB."""
    value, unit = _scaled(count)
    if unit == "B" or abs(value) >= 100:
        return f"{value:.0f} {unit}"
    return f"{f'{value:#.3g}'.rstrip('.')} {unit}"


def format_bytes_short(count: float) -> str:
    """Write a round number of bytes for an axis: 512 B, 1.5 KiB."""
    value, unit = _scaled(count)
    return f"{value:g} {unit}"


def format_count(count: float) -> str:
    """Write a count in full, with separators: 230,218."""
    return f"{count:,.0f}"


def format_short(count: float) -> str:
    """Write a round count for an axis: 1, 10k, 2.5M."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:g}{suffix}"
    return f"{count:g}"


def format_duration(seconds: float) -> str:
    """Write a time with its two largest units: 45.3 s, 3 min 42 s, 2 h 05 min."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def _scaled(count: float) -> tuple[float, str]:
    power = 0
    while abs(round(count)) >= 1024 and power < len(_UNITS) - 1:
        count /= 1024
        power += 1
    return count, _UNITS[power]
