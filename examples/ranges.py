"""The sum of a long range, as 100 remote tasks: each sums a part, in whichever worker is free.

``chunk_sum`` is a plain function; ``eagleray.remote(chunk_sum)`` is what sends it to workers. Its ``remote`` returns a ref at
once, ``get`` waits for values. Refs may be arguments too: the task gets the value.
"""

from __future__ import annotations

import eagleray

PARTS, LENGTH = 100, 100_000


def chunk_sum(chunk: range) -> int:
    return sum(chunk)


@eagleray.remote
def add(*sums: int) -> int:
    return sum(sums)


def main() -> None:
    chunks = [range(i * LENGTH, (i + 1) * LENGTH) for i in range(PARTS)]
    expected = sum(range(PARTS * LENGTH))

    remote_sum = eagleray.remote(chunk_sum)
    refs = [remote_sum.remote(chunk) for chunk in chunks]
    assert sum(eagleray.get(refs)) == expected
    print(f"sum of {PARTS} sums, in the driver: {expected}")

    # Refs as arguments: the sum of the sums is a task as well, and only one number comes back.
    total = eagleray.get(add.remote(*refs))
    assert total == expected
    print(f"sum of {PARTS} sums, in a task:     {total}")

    # As they come: what is there is added up while the others run.
    total, pending = 0, [remote_sum.remote(chunk) for chunk in chunks]
    while pending:
        done, pending = eagleray.wait(pending)
        total += sum(eagleray.get(done))
    assert total == expected
    print(f"as they came:                {total}")


if __name__ == "__main__":
    main()
