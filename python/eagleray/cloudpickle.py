"""The package cloudpickle, under the name by which Ray's users import it. Refs and handles pickle in it as anywhere."""

from __future__ import annotations

from cloudpickle import CloudPickler, Pickler, dump, dumps, load, loads, register_pickle_by_value

__all__ = ["CloudPickler", "Pickler", "dump", "dumps", "load", "loads", "register_pickle_by_value"]
