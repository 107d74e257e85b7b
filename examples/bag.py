"""Bags: lines of text to words to counts, and records grouped by a key."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import dask.bag as db

from eagleray.dask import ray_dask_get

TEXT = """\
The pool of workers is forked from a template.
A run is a list of tasks that a worker executes straight through.
What only the run reads never leaves the worker.
"""


def words(line: str) -> list[str]:
    return [word.strip(".,").lower() for word in line.split()]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(8):
            Path(folder, f"{number}.txt").write_text(TEXT * (number + 1))
        lines = db.read_text(f"{folder}/*.txt")
        counts = dict(lines.map(words).flatten().frequencies().compute(scheduler=ray_dask_get))
        copies = sum(range(1, 9))
        assert counts["run"] == 2 * copies
        assert counts["template"] == copies

        # JSON records: the largest amount of each customer.
        records = [json.dumps({"customer": number % 5, "amount": number}) for number in range(1000)]
        largest = (
            db.from_sequence(records, npartitions=8)
            .map(json.loads)
            .foldby("customer", lambda best, record: max(best, record["amount"]), 0, max)
            .compute(scheduler=ray_dask_get)
        )
        assert sorted(largest) == [(customer, 995 + customer) for customer in range(5)]

    print(f"{sum(counts.values())} words, {len(counts)} different; the largest amounts: {sorted(largest)}")


if __name__ == "__main__":
    main()
