"""What error messages say of a value: safely, and without looking at much of it."""

from collections import OrderedDict, deque
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from eagleray._summary import size, summary


class Hostile:
    """Everything of it fails."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


class HostileList(list[int]):
    def __len__(self) -> int:
        raise RuntimeError

    def __getitem__(self, place: Any) -> Any:
        raise RuntimeError


class HostileArray(np.ndarray):
    @property
    def shape(self) -> Any:  # type: ignore[override]
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


class HostileType(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class OfHostileType(metaclass=HostileType):
    pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NoneType"),
        (3, "int, 3"),
        (True, "bool, True"),
        (10**100, "int"),
        (1.5, "float, 1.5"),
        ("text", "str, 'text'"),
        ("x" * 1000, "str, length 1000"),
        (b"x" * 1000, "bytes, length 1000"),
        ([], "list, 0 items"),
        ([1], "list, 1 item, the first: int, 1"),
        ((1, 2), "tuple, 2 items, the first: int, 1"),
        ([[1]], "list, 1 item"),
        ({"a": 1}, "dict, 1 item"),
        (OrderedDict(a=1), "collections.OrderedDict, 1 item"),
        (deque([1, 2]), "collections.deque, 2 items"),
        ({1, 2}, "set, 2 items"),
        (np.ones((1000, 1000)), "numpy.ndarray, shape (1000, 1000), float64, 7.6 MiB"),
        (np.ones(3).astype(object), "numpy.ndarray, shape (3,), object, 24 B"),
        (np.float32(1.5), "numpy.float32, 1.5"),
        ([np.ones(3)], "list, 1 item, the first: numpy.ndarray, shape (3,), float64, 24 B"),
        (pd.Series([1, 2], name="x"), "pandas.Series, shape (2,), int64, 16 B"),
        (pa.table({"a": [1, 2]}), "pyarrow.Table, shape (2, 1), 16 B"),
        (Hostile(), "tests.test_summary.Hostile"),
        (HostileList([1, 2]), "tests.test_summary.HostileList, 2 items, the first: int, 1"),
        (np.ones(3).view(HostileArray), "tests.test_summary.HostileArray, shape (3,), float64, 24 B"),
        (OfHostileType(), "tests.test_summary.OfHostileType"),
    ],
    ids=lambda value: value if type(value) is str and len(value) < 80 else "value",
)
def test_summary(value: Any, text: str) -> None:
    assert summary(value) == text


def test_data_frame() -> None:
    frame = pd.DataFrame({"a": range(1000), "b": 1.5})
    # Its index counts, and differs between versions of pandas.
    assert summary(frame).startswith("pandas.DataFrame, shape (1000, 2), 15.")
    assert summary(frame).endswith(" KiB")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (8_000_000, "7.6 MiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text
