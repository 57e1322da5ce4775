"""What commands print as tables, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_COLUMNS = (
    *("HOST", "NAME", "STATE", "SINCE", "OPEN", "HELD"),
    *("LAST START", "SLEEPS IN", "WHY"),
)

LEAST_WIDTH = 24
"""How much room a last column gets, in however narrow a terminal."""


def status_table(services: Sequence[Mapping[str, Any]], width: int | None = None) -> str:
    """Return `ServiceStatus` objects as a table, one line each.

    Args:
        services: as the control socket gives them.
        width: columns of the terminal; the reason is cut there. None: nothing is cut.
    """
    return aligned([_COLUMNS, *map(_row, services)], width)


def aligned(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Return rows of cells under each other; the last cell of each is cut to fit the width."""
    rows = [[shortened(cell, None) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = None
    if width is not None:
        last = max(LEAST_WIDTH, width - sum(widths[:-1]) - 2 * len(widths[:-1]))
    lines = []
    for *cells, tail in rows:
        padded = [cell.ljust(size) for cell, size in zip(cells, widths, strict=False)]
        lines.append("  ".join([*padded, shortened(tail, last)]).rstrip())
    return "\n".join(lines)


def printable(text: str) -> str:
    """Return text that a terminal only shows: what it would obey is replaced, line ends stay."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text
    )


def shortened(text: str, longest: int | None) -> str:
    """Return text in one line, with … in place of what is too much."""
    line = printable(" ".join(text.split()))
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units, as people say it."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    return f"{hours}h{minutes}m" if hours else f"{minutes}m{rest}s"


def _row(service: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        service["host"],
        service["name"],
        service["state"],
        duration(service["since_seconds"]),
        str(service["leases"]),
        str(service["held"]),
        duration(service["last_start_seconds"]),
        duration(service["sleeps_in_seconds"]),
        service["why"],
    )
