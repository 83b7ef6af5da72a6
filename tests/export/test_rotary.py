"""Rotary angles computed in a graph against transformers' own, at the sections of the real models."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
ort = pytest.importorskip("onnxruntime")

from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding  # noqa: E402

from backends.export.graph import FLOAT, INT64, DataFile, Graph  # noqa: E402
from backends.export.rotary import along_text, axes, in_space  # noqa: E402
from backends.qwen3vl import Config, TextConfig  # noqa: E402
from tests import tiny  # noqa: E402

PLACES = np.random.default_rng(0).integers(0, 262144, (3, 2, 7))
SECTIONS = {128: (24, 20, 20), 32: (6, 5, 5), 16: (4, 2, 2)}


def described(folder: Path, head_dim: int) -> tuple[TextConfig, "torch.nn.Module"]:
    config = tiny.config()
    config.text_config.head_dim = head_dim
    config.text_config.rope_parameters |= {"rope_theta": 5e6, "mrope_section": list(SECTIONS[head_dim])}
    config.save_pretrained(folder)
    return Config.read(folder).text, Qwen3VLTextRotaryEmbedding(config.text_config)


def turned(folder: Path, config: TextConfig, places: np.ndarray) -> list[np.ndarray]:
    """Cosines and sines [B, S, head_dim / 2] of the graph."""
    with DataFile(folder / "weights.data") as data:
        graph = Graph("rotary", data)
        shape = [3, "batch", "tokens"] if places.ndim == 3 else ["batch", "tokens"]
        rotary = (in_space if places.ndim == 3 else along_text)(
            graph, config, graph.input("places", INT64, shape)
        )
        for name in (rotary.cos, rotary.sin):
            graph.output(name, FLOAT, [None, None])
        graph.output(rotary.rows, INT64, [None, None])
        graph.save(folder / "rotary.onnx")
    session = ort.InferenceSession(folder / "rotary.onnx", providers=["CPUExecutionProvider"])
    cos, sin, rows = session.run(None, {"places": places})
    return [cos[rows], sin[rows]]


@pytest.mark.parametrize("head_dim", SECTIONS)
def test_angles_in_space_equal_transformers(tmp_path: Path, head_dim: int) -> None:
    config, reference = described(tmp_path, head_dim)
    expected = reference(torch.zeros(1), torch.from_numpy(PLACES))
    swapped = turned(tmp_path, config, PLACES[[0, 2, 1]].copy())
    (tmp_path / "right").mkdir()
    right = turned(tmp_path / "right", config, PLACES)
    for kind, (ours, wrong) in enumerate(zip(right, swapped, strict=True)):
        theirs = expected[kind][..., : head_dim // 2].numpy()
        # PyTorch's power is off by a last bit at one frequency of the real models
        assert np.abs(ours - theirs).max() <= 3e-4
        assert np.abs(wrong - theirs).max() > 0.1


def test_angles_of_text_equal_those_of_three_equal_rows(tmp_path: Path) -> None:
    config, _ = described(tmp_path, 128)
    same = np.broadcast_to(PLACES[:1], PLACES.shape).copy()
    flat = turned(tmp_path, config, PLACES[0].copy())
    (tmp_path / "space").mkdir()
    for one, three in zip(flat, turned(tmp_path / "space", config, same), strict=True):
        assert np.array_equal(one, three)


def test_axes_take_turns_until_their_sections_are_used_up(tmp_path: Path) -> None:
    config, _ = described(tmp_path, 128)
    turns = axes(config).tolist()
    assert turns == [0, 1, 2] * 20 + [0, 0, 0, 0]
