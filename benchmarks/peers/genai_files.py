"""A checkpoint's language model by onnxruntime-genai's own builder, and what its rounding cost."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import BackendError
from backends.export.quantize import Rounded, dequantise
from backends.store import MatrixError, Scheme, Weights
from benchmarks.peers.conversion import Converted, prepare, run
from benchmarks.peers.errors import relative_error
from router.models import Listener

GRAPH = "model.onnx"
_NODE = re.compile(r"/model/layers\.(\d+)/(attn|mlp)/(\w+)/MatMul_Q4")


def converted(checkpoint: Path, work: Path, listener: Listener) -> Converted:
    """The model at 4 bits, with the builder's defaults; BackendError: it failed."""
    return prepare(partial(_convert, work), checkpoint, work / "genai-builder", listener)


def checkpoint_name(node: str, *, tied: bool) -> str | None:
    """The checkpoint's tensor behind a node of the builder's graph; None: there is none known."""
    if node.startswith("/lm_head/"):
        return "model.language_model.embed_tokens.weight" if tied else "lm_head.weight"
    found = _NODE.fullmatch(node)
    if found is None:
        return None
    layer, part, matrix = found.groups()
    part = "self_attn" if part == "attn" else part
    return f"model.language_model.layers.{layer}.{part}.{matrix}.weight"


def errors(folder: Path, checkpoint: Path) -> list[MatrixError]:
    """||W - Wq|| / ||W|| of every matrix of the layers and of the head."""
    import onnx

    graph = onnx.load(folder / GRAPH, load_external_data=False).graph
    weights = Weights(checkpoint)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            name = checkpoint_name(node.name, tied="lm_head.weight" not in weights)
            if name is None or name not in weights:
                raise BackendError(f"the builder's graph has a matrix '{node.name}' that is not known here")
            found.append(_error(node, name, tensors, folder, weights))
    return found


def _convert(work: Path, checkpoint: Path, folder: Path) -> list[MatrixError]:
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint)]
    options = ["-p", "int4", "-e", "cpu", "-c", str(folder / "cache")]
    run([*command, "-o", str(folder), *options], work / "genai-builder.log")
    return errors(folder, checkpoint)


def _error(node: Any, name: str, tensors: dict[str, Any], folder: Path, weights: Weights) -> MatrixError:
    from onnx.helper import get_node_attr_value
    from onnx.numpy_helper import to_array

    bits, block, columns, rows = (
        get_node_attr_value(node, each) for each in ("bits", "block_size", "K", "N")
    )
    codes, scales, *zeros = (to_array(tensors[each], str(folder)) for each in node.input[1:4] if each)
    scheme = Scheme(bits, block, symmetric=not zeros)
    blocks = scheme.blocks(columns)
    codes, scales = codes.reshape(rows, blocks, -1), scales.reshape(rows, blocks).astype(np.float32)
    points = zeros[0].reshape(rows, -1) if zeros else None

    def kept(piece: slice) -> Any:
        part = Rounded(codes[piece], scales[piece], None if points is None else points[piece])
        return dequantise(part, scheme, columns)

    error = relative_error(weights.shape(name), lambda piece: weights.read(name, piece), kept)
    return MatrixError(name, bits, block, error)
