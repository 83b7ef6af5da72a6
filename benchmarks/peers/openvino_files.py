"""A checkpoint as OpenVINO GenAI reads it, made by optimum-intel and read back to tell what it cost."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import BackendError
from backends.qwen3vl import Config, TextConfig
from backends.store import MatrixError, Weights
from benchmarks.peers.conversion import Converted, prepare, run
from benchmarks.peers.errors import relative_error
from router.models import Listener

_PACKAGES = Path(__file__).with_name("openvino_exporter.txt")
_GROUPS = (128, 64, 32)  # of values that share a scale; the first is what people use
_GRAPHS = {"language_model": "", "vision_embeddings_merger_model": "model.visual."}
_BITS = {"u4": 4, "i4": 4, "u8": 8, "i8": 8}
_CONSTANT = re.compile(r"self\.(.+)\.(?:_openvino_orig_weight|weight)")


def converted(checkpoint: Path, work: Path, listener: Listener) -> Converted:
    """The model at 4 bits; BackendError: a tool failed."""
    return prepare(partial(_convert, work), checkpoint, work / "openvino-int4", listener)


def group_size(text: TextConfig) -> int:
    """How many values share a scale: a group must not be cut by the end of a row."""
    columns = math.gcd(text.hidden, text.intermediate, text.heads * text.head_dim)
    for group in _GROUPS:
        if columns % group == 0:
            return group
    raise BackendError(f"its converter needs rows that divide by {_GROUPS[-1]}")


def checkpoint_name(constant: str, prefix: str) -> str | None:
    """The checkpoint's tensor behind a constant of a graph; None: a scale, a zero point, or no tensor."""
    found = _CONSTANT.fullmatch(constant)
    return f"{prefix}{found[1]}.weight" if found else None


def widened(
    codes: NDArray[np.float32], zeros: NDArray[np.float32] | None, scales: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The rows [rows, columns] behind codes [rows, groups, group] or [rows, columns]."""
    values = (codes if zeros is None else codes - zeros) * scales
    return values.reshape(len(codes), -1)


def errors(folder: Path, checkpoint: Path) -> list[MatrixError]:
    """||W - Wq|| / ||W|| of every matrix of the language model and of the tower's blocks and mergers."""
    from openvino import Core

    core, weights, found = Core(), Weights(checkpoint), []
    for graph, prefix in _GRAPHS.items():
        model = core.read_model(folder / f"openvino_{graph}.xml")
        for node in model.get_ops():
            if node.get_type_name() != "Constant" or _type(node) not in _BITS:
                continue
            name = checkpoint_name(node.get_friendly_name(), prefix)
            if name is not None and name in weights:
                found.append(_error(node, name, weights))
    _check_whole(weights, {error.name for error in found})
    return found


def _convert(work: Path, checkpoint: Path, folder: Path) -> list[MatrixError]:
    group = group_size(Config.read(checkpoint).text)
    paths = os.pathsep.join([str(_exporter(work)), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino"]
    options = ["--task", "image-text-to-text", "--weight-format", "int4", "--group-size", str(group)]
    run(
        [*command, "--model", str(checkpoint), *options, str(folder)],
        work / "openvino.log",
        {"PYTHONPATH": paths},
    )
    return errors(folder, checkpoint)


def _exporter(work: Path) -> Path:
    """The folder with the packages that convert; they are installed at the first call."""
    folder = work / "openvino-exporter"
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(part)]
        run([*command, "-r", str(_PACKAGES)], work / "openvino-exporter.log")
        part.rename(folder)
    return folder


def _error(node: Any, name: str, weights: Weights) -> MatrixError:
    codes, zeros, scales = _stored(node)

    def kept(piece: slice) -> NDArray[np.float32]:
        return widened(codes[piece], None if zeros is None else zeros[piece], scales[piece])

    error = relative_error(weights.shape(name), lambda piece: weights.read(name, piece), kept)
    return MatrixError(name, _BITS[_type(node)], codes.shape[2] if codes.ndim == 3 else 0, error)


def _stored(node: Any) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32]]:
    """Codes, zero points and scales, as the graph has them: (convert(codes) - zeros) * scales."""
    codes, zeros = node.get_data(dtype=np.float32), None
    following = _user(_user(node))
    if following.get_type_name() == "Subtract":
        zeros = _values(following.input_value(1).get_node())
        following = _user(following)
    if following.get_type_name() != "Multiply":
        raise BackendError(f"openvino stores {node.get_friendly_name()} in a way that is not known here")
    return codes, zeros, _values(following.input_value(1).get_node())


def _values(node: Any) -> NDArray[np.float32]:
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    values: NDArray[np.float32] = node.get_data(dtype=np.float32)
    return values


def _user(node: Any) -> Any:
    return next(iter(node.output(0).get_target_inputs())).get_node()


def _type(node: Any) -> str:
    name: str = node.get_element_type().get_type_name()
    return name


def _check_whole(weights: Weights, found: set[str]) -> None:
    """A matrix that was not found would be missing from the mean as if nothing were lost in it."""
    for name in weights.names:
        if "language_model.layers." in name and len(weights.shape(name)) == 2 and name not in found:
            raise BackendError(f"openvino's files have no rounded '{name}'")
