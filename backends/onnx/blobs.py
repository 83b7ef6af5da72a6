"""Matrices in the order in which onnxruntime multiplies by them here, written behind an export's weights.

Loading a graph, onnxruntime packs each matrix into memory of its own. A graph can name packed matrices in its
data file, blobs: those are mapped, and all sessions that map the file share them. It packs at every load
nevertheless, and takes the blob whose name is the hash of what came out: one of another processor or version
is passed over. That a blob is still what was written it does not check.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper

from backends.base import BackendError
from backends.onnx.errors import named_errors
from backends.store import Progress

Entries: TypeAlias = dict[str, list[tuple[str, str]]]  # of each tensor: what names its blobs

_MULTIPLY = ("MatMulNBits", "FusedMatMul")
ENTRY = "prepacked"  # how the keys of such entries begin
_GRAPH, _DATA = "matrix.onnx", "matrix.data"


def append_blobs(model: ModelProto, folder: Path, data: Path, progress: Progress) -> Entries:
    """Append the blobs of all matrices in ``model``, a graph of the export ``folder``, to ``data``.

    They are made one matrix at a time, so that memory holds no more than one. BackendError
    ``backend_unavailable``: this onnxruntime, or this processor, has none.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {node.input[1]: node for node in model.graph.node if _multiplies(node, tensors)}
    total, done = sum(_length(tensors[name]) for name in nodes), 0
    entries: Entries = {}
    written: set[str] = set()
    with data.open("r+b") as stream, TemporaryDirectory(dir=data.parent) as scratch:
        stream.seek(0, 2)
        for name, node in nodes.items():
            progress(name, done, total)
            with named_errors("its matrices cannot be packed"):
                _save(_alone(model, node, tensors), folder, Path(scratch))
            for owner, key, value in _saved(Path(scratch)):
                if (blob := value.partition("|")[0]) not in written:  # equal matrices have one between them
                    entries.setdefault(owner, []).append((key, _moved(value, Path(scratch, _DATA), stream)))
                    written.add(blob)
            done += _length(tensors[name])
            if not entries:
                break  # what it does not do for the first, it does for none
    if not entries:
        raise BackendError(
            f"onnxruntime {ort.__version__} has no packed matrices to share on this processor",
            code="backend_unavailable",
        )
    return entries


def name_blobs(model: ModelProto, entries: Entries) -> None:
    """Add the entries to those tensors of ``model`` that have them."""
    for tensor in model.graph.initializer:
        for key, value in entries.get(tensor.name, ()):
            tensor.external_data.add(key=key, value=value)


def _multiplies(node: NodeProto, tensors: dict[str, TensorProto]) -> bool:
    """Whether it multiplies by a constant matrix."""
    return node.op_type in _MULTIPLY and all(name in tensors for name in node.input[1:] if name)


def _length(tensor: TensorProto) -> int:
    named = {entry.key: entry.value for entry in tensor.external_data}
    return int(named.get("length", len(tensor.raw_data)))


def _alone(model: ModelProto, node: NodeProto, tensors: dict[str, TensorProto]) -> bytes:
    """A model that has this node and nothing else."""
    input_, output = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in (node.input[0], node.output[0])
    )
    constants = [tensors[name] for name in node.input[1:] if name]
    graph = helper.make_graph([node], "matrix", [input_], [output], constants)
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(alone.SerializeToString())


def _save(model: bytes, folder: Path, scratch: Path) -> None:
    """Let onnxruntime save ``model``, whose weights stand in ``folder``, with its blobs."""
    (scratch / _DATA).unlink(missing_ok=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # it warns that what it saves is for this machine only
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(scratch / _GRAPH)
    for key, value in (
        ("save_external_prepacked_constant_initializers", "1"),
        ("optimized_model_external_initializers_file_name", _DATA),
        ("optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("model_external_initializers_file_folder_path", str(folder)),
    ):
        options.add_session_config_entry(f"session.{key}", value)
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _saved(scratch: Path) -> Iterator[tuple[str, str, str]]:
    """Each entry of the saved model that names blobs: its tensor, its key and its value."""
    for tensor in onnx.load(scratch / _GRAPH, load_external_data=False).graph.initializer:
        for entry in tensor.external_data:
            if entry.key.startswith(ENTRY):
                yield tensor.name, entry.key, entry.value


def _moved(value: str, source: Path, stream: BinaryIO) -> str:
    """Append the blobs that ``value``, "name|offset;bytes;checksum|...", names; what names them there."""
    name, *blobs = value.split("|")
    moved = [name]
    for offset, length, checksum in (blob.split(";") for blob in blobs):
        at = -(-stream.tell() // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        stream.seek(at)
        stream.write(np.memmap(source, np.uint8, "r", int(offset), int(length)).data)
        moved.append(f"{at};{length};{checksum}")
    return "|".join(moved)
