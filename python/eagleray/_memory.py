"""What the objects of a session take, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from eagleray._look import Listing, ObjectState, Seen, grouped
from eagleray._summary import clip, size

_MOST = 1_000_000
"""Objects that are counted."""

_SORTS = ("OBJECT_SIZE", "REFERENCE_TYPE")
_GROUPS = ("NODE_ADDRESS", "REFERENCE_TYPE")

_KINDS = {"PUT": "put", "LITERAL": "literal", "RESULT": "result"}
_STORES = {"INLINE": "inline", "SEALED": "sealed", "WORKER": "in a worker", None: "-"}


def memory_summary(
    address: str | None = None,
    group_by: str = "NODE_ADDRESS",
    sort_by: str = "OBJECT_SIZE",
    units: str = "B",
    line_wrap: bool = True,
    stats_only: bool = False,
    num_entries: int | None = 100,
) -> str:
    """A table of the objects that are made or held: size, kind, where they are, and who holds how many refs; then totals and
    the use of the object store.

    Args:
        address: None or "auto": the session of this process.
        group_by: "NODE_ADDRESS" for one table, "REFERENCE_TYPE" for one of each kind.
        sort_by: "OBJECT_SIZE", the largest first, or "REFERENCE_TYPE".
        units: "B", "KB", "MB" or "GB"; "auto" for what suits each size.
        line_wrap: Accepted for Ray's sake: lines are never wrapped.
        stats_only: Only totals.
        num_entries: At most so many objects of each table; None for all. What is left out is said.

    Raises:
        TypeError, ValueError: An argument is not what it should be.
    """
    if address not in (None, "auto", "local"):
        raise ValueError(f"address must be None or 'auto', not {address!r}: it is the session of this process.")
    for name, value, known in (("group_by", group_by, _GROUPS), ("sort_by", sort_by, _SORTS), ("units", units, _UNITS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}.")
    if num_entries is not None and (isinstance(num_entries, bool) or not isinstance(num_entries, int)):
        raise TypeError(f"num_entries must be a whole number or None, not {type(num_entries).__name__}.")
    if num_entries is not None and num_entries < 0:
        raise ValueError(f"num_entries must be 0 or more, not {num_entries}.")
    seen = Seen(objects=_MOST)
    found = seen.objects()
    rows: list[ObjectState] = found.rows
    lines: list[str] = []
    if not stats_only:
        groups = grouped(rows, lambda row: row.reference_type if group_by == "REFERENCE_TYPE" else "")
        for kind, group in sorted(groups.items()):
            if kind:
                lines.append(f"{_KINDS[kind]}:")
            lines += [*_table(_sorted(group, sort_by), units, num_entries), ""]
    lines += _totals(seen, found, units)
    return "\n".join(lines)


_UNITS = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "auto": None}


def _size(count: int | None, units: str) -> str:
    if count is None:
        return "?"
    unit = _UNITS[units]
    if unit is None:
        return size(count)
    return f"{count} B" if unit == 1 else f"{count / unit:.3f} {units}"


def _sorted(rows: Sequence[ObjectState], by: str) -> list[ObjectState]:
    def largest(row: ObjectState) -> int:
        return -(row.object_size or 0)

    if by == "OBJECT_SIZE":
        return sorted(rows, key=largest)
    return sorted(rows, key=lambda row: (row.reference_type, largest(row)))


def _table(rows: Sequence[ObjectState], units: str, most: int | None) -> list[str]:
    head = ("object", "kind", "size", "where", "held by", "still read by", "of")
    shown = rows if most is None else rows[:most]
    cells = [head, *(_line(row, units) for row in shown)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    if len(shown) < len(rows):
        lines.append(f"... and {len(rows) - len(shown):,} more")
    return lines


def _line(row: ObjectState, units: str) -> tuple[str, ...]:
    holders = ", ".join(f"{who} ({count})" for who, count in row.holders.items())
    readers = f"{row.readers} task{'' if row.readers == 1 else 's'}" if row.readers else "-"
    where = _STORES[row.store]
    if row.store is None and row.task_status is not None:
        where = "not made" if row.task_status != "FAILED" else "failed"
    return (
        row.object_id,
        _KINDS[row.reference_type],
        _size(row.object_size, units) if row.store in ("INLINE", "SEALED") else "-",
        where,
        holders or "-",
        readers,
        clip(row.name, 60) or "-",
    )


def _totals(seen: Seen, found: Listing, units: str) -> list[str]:
    rows: list[ObjectState] = found.rows
    lines = []
    if len(rows) < found.total:
        lines.append(f"{len(rows):,} of {found.total:,} objects are counted here.")
    for kind, name in _KINDS.items():
        group = [row for row in rows if row.reference_type == kind]
        total = sum(row.object_size or 0 for row in group)
        lines.append(f"{len(group):,} {name}{'' if len(group) == 1 else 's'}: {_size(total, units)}")
    counters = seen.raw["counters"]
    alive = sum(worker["alive"] for worker in seen.raw["workers"])
    lines.append(
        f"object store: {_size(counters['sealed_bytes'], units)} in use; each of {alive + 1} processes may have "
        f"{_size(seen.raw['store_bytes'], units)}. What does not fit goes to files in the session directory."
    )
    return lines
