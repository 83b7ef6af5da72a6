"""How many bytes of weights a graph reads to decode one token, told from the graph itself."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from backends.base import BackendError

# what is read whole; a gather or a rotary embedding reads one row of its table, which is nothing beside it
_PRODUCTS = {"MatMulNBits", "MatMul", "FusedMatMul", "MatMulInteger", "DynamicQuantizeMatMul", "Gemm"}


def weight_bytes(file: Path) -> int:
    """Bytes of every matrix that the graph multiplies by: its codes, scales and zero points, each once.

    BackendError ``model_invalid``: ``file`` is no graph.
    """
    try:
        graph = onnx.load(str(file), load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise BackendError(f"{file} cannot be read: {error}", code="model_invalid") from None
    read = {name for node in graph.node if node.op_type in _PRODUCTS for name in node.input}
    # two names may stand for the same bytes of the data file
    places = dict(_place(tensor) for tensor in graph.initializer if tensor.name in read)
    return sum(places.values())


def _place(tensor: onnx.TensorProto) -> tuple[tuple[str, str], int]:
    """What tells a tensor's bytes from another's, and how many they are."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return ("", tensor.name), len(tensor.raw_data)
    entry = {pair.key: pair.value for pair in tensor.external_data}
    return (entry["location"], entry.get("offset", "0")), int(entry["length"])
