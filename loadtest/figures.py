"""Numbers for people. Pure."""

from __future__ import annotations


def milliseconds(value: float) -> str:
    """Three digits, however small: `1,234`, `123`, `12.3`, `0.041`; never 0 for what is more."""
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or not value else f"{value:.1g}"
