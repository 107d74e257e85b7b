"""The shuffle layer of dataframes that are HighLevelGraphs. Only a Dask before 2025.1 can import this."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any, Self

from dask.highlevelgraph import HighLevelGraph
from dask.layers import SimpleShuffleLayer

from eagleray.dask.multiple_returns import MultipleReturnFunc, multiple_return_get


class MultipleReturnSimpleShuffleLayer(SimpleShuffleLayer):  # type: ignore[misc]
    """A shuffle whose input partitions are each split by one task that returns all parts."""

    @classmethod
    def clone(cls, layer: SimpleShuffleLayer, parts_out: Collection[int] | None = None) -> Self:
        """The same shuffle as another layer's, of all its output partitions or of some."""
        return cls(
            layer.name,
            layer.column,
            layer.npartitions,
            layer.npartitions_input,
            layer.ignore_index,
            layer.name_input,
            layer.meta_input,
            parts_out=layer.parts_out if parts_out is None else parts_out,
            annotations=layer.annotations,
        )

    def __repr__(self) -> str:
        return f"MultipleReturnSimpleShuffleLayer<name={self.name!r}, npartitions={self.npartitions}>"

    def _cull(self, parts_out: Collection[int]) -> Self:
        return self.clone(self, parts_out)

    def _construct_graph(self, deserializing: bool = False) -> dict[Any, Any]:
        dsk: dict[Any, Any] = super()._construct_graph(deserializing)
        for key, (function, *args) in dsk.items():
            if key[0] == self.split_name and function is operator.getitem:
                dsk[key] = (multiple_return_get, *args)
            elif key[0] == f"group-{self.name}":
                # It splits into all partitions, also if only some of them are wanted.
                dsk[key] = (MultipleReturnFunc(function, self.npartitions), *args)
        return dsk


def rewrite_simple_shuffle_layer(dsk: Any, keys: Any) -> HighLevelGraph:
    """The graph with its simple shuffle layers replaced."""
    if not isinstance(dsk, HighLevelGraph):
        dsk = HighLevelGraph.from_collections(str(id(dsk)), dsk, dependencies=())
    layers = {
        name: MultipleReturnSimpleShuffleLayer.clone(layer) if type(layer) is SimpleShuffleLayer else layer
        for name, layer in dsk.layers.items()
    }
    return HighLevelGraph(layers, dsk.dependencies)
