"""ONNX graphs written by hand, whose big tensors stand in one data file beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET, IR_VERSION = 21, 10  # what onnxruntime 1.20 and later read
CONTRIB = "com.microsoft"  # onnxruntime's own operators
FLOAT, INT64, INT32, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8
INLINE_LIMIT = 1024  # bytes; a larger constant goes to the data file
_PAGE = 4096  # a tensor that starts on a page can be mapped from the file

Side: TypeAlias = int | str | None
Attribute: TypeAlias = Any  # what the operator says: a number, a text, or a sequence of numbers


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor stands in a data file."""

    file: str
    offset: int
    length: int
    kind: int  # TensorProto data type
    shape: tuple[int, ...]


class DataFile:
    """One file of tensors behind one or more graphs, written tensor by tensor and never held in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[str, TensorPlace] = {}
        self._stream = path.open("xb")

    def __enter__(self) -> DataFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def write(self, name: str, array: NDArray[Any]) -> str:
        """Append a whole tensor; return its name."""
        return self.stream(name, array.dtype, array.shape, [array])

    def stream(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], parts: Iterable[NDArray[Any]]
    ) -> str:
        """Append a tensor that comes as consecutive ``parts`` of its first axis; return its name."""
        assert name not in self.places, f"'{name}' is written twice"
        offset = -(-self._stream.tell() // _PAGE) * _PAGE
        self._stream.seek(offset)
        length = 0
        for part in parts:
            assert part.dtype == dtype, f"'{name}' is {dtype}, a part of it {part.dtype}"
            length += self._stream.write(np.ascontiguousarray(part).data.cast("B"))
        assert length == math.prod(shape) * dtype.itemsize, f"'{name}' has {length} bytes, not {shape}"
        kind = helper.np_dtype_to_tensor_dtype(dtype)
        self.places[name] = TensorPlace(self.path.name, offset, length, kind, tuple(shape))
        return name

    def view(self, name: str, suffix: str, shape: tuple[int, ...]) -> str:
        """The bytes of tensor ``name`` once more under another shape, of which one side may be -1."""
        place = self.places[name]
        known = math.prod(side for side in shape if side != -1)
        whole = tuple(math.prod(place.shape) // known if side == -1 else side for side in shape)
        assert math.prod(whole) == math.prod(place.shape), f"'{name}' has shape {place.shape}, not {shape}"
        self.places[f"{name}.{suffix}"] = replace(place, shape=whole)
        return f"{name}.{suffix}"


class Graph:
    """One ONNX graph: values are names, and every method returns the name of what it adds."""

    def __init__(self, name: str, data: DataFile) -> None:
        self.name = name
        self.data = data
        self._nodes: list[NodeProto] = []
        self._tensors: dict[str, TensorProto] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._count = 0
        self._notes: dict[str, str] = {}

    def note(self, key: str, value: str) -> None:
        """Keep a text in the model's metadata, where its reader finds it."""
        self._notes[key] = value

    def input(self, name: str, kind: int, shape: Sequence[Side]) -> str:
        """Declare an input; a side is a number, a name that equal sides share, or None."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int, shape: Sequence[Side]) -> str:
        """Declare that the value ``name`` is an output."""
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def op(
        self,
        kind: str,
        *inputs: str,
        name: str | None = None,
        domain: str = "",
        **attributes: Attribute,
    ) -> str:
        """Add a node with one output, called ``name`` or numbered; "" stands for an input left out."""
        return self.ops(kind, *inputs, names=(name or self._next(kind),), domain=domain, **attributes)[0]

    def ops(
        self, kind: str, *inputs: str, names: Sequence[str], domain: str = "", **attributes: Attribute
    ) -> tuple[str, ...]:
        """Add a node whose outputs are called ``names``."""
        # attributes are the operator's own, so their names are onnxruntime's to check when it loads the graph
        self._nodes.append(
            helper.make_node(kind, inputs, names, name=f"{kind}:{names[0]}", domain=domain, **attributes)
        )
        return tuple(names)

    def constant(self, array: NDArray[Any], name: str | None = None) -> str:
        """Add a constant: small ones into the graph, others into the data file under ``name``."""
        name = name or self._next("constant")
        if array.nbytes > INLINE_LIMIT:
            return self.external(self.data.write(name, array))
        self._tensors[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def ints(self, *values: int) -> str:
        """Add a one-dimensional int64 constant, as shapes, axes and indices are given; equal ones are one."""
        return self.once("ints" + "".join(f"_{value}" for value in values), np.array(values, np.int64))

    def once(self, name: str, array: NDArray[Any]) -> str:
        """Add the constant ``name``, unless it is there."""
        return name if name in self._tensors else self.constant(array, name)

    def external(self, name: str) -> str:
        """Use the tensor ``name`` of the data file."""
        if name in self._tensors:
            return name
        place = self.data.places[name]
        tensor = TensorProto(name=name, data_type=place.kind, dims=place.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", place.file), ("offset", place.offset), ("length", place.length)):
            tensor.external_data.add(key=key, value=str(value))
        self._tensors[name] = tensor
        return name

    def model(self) -> ModelProto:
        """The graph as a model; its big tensors stay in the data file."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, list(self._tensors.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hybrid-router"
        )
        helper.set_model_props(model, self._notes)
        return model

    def save(self, path: Path) -> None:
        """Write the graph beside its data file."""
        assert path.parent == self.data.path.parent, "a graph names its data file relative to itself"
        with path.open("xb") as stream:
            stream.write(self.model().SerializeToString(deterministic=True))

    def _next(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"
