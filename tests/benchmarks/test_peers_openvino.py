"""Peers: OpenVINO GenAI and onnxruntime-genai's own loop, and how far their files are from a checkpoint."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from backends.base import BackendError, RequestError, Runtime
from backends.export.quantize import dequantise, quantise
from backends.qwen3vl import Config
from backends.store import MatrixError, Recipe, Scheme, Weights
from benchmarks.peers import genai_files, genai_own, openvino_files, openvino_genai
from benchmarks.peers.conversion import prepare, run
from router.bench.engine import LocalConfig
from router.models import EMBEDDED_FOLDER, SILENT, Model, export_to
from router.prompt import PromptBuilder
from router.types import Message, Picture
from tests import tiny

RANDOM = np.random.default_rng(3)
IMAGE = Picture(np.zeros((64, 96, 3), np.uint8))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("peers") / "tiny")


@pytest.mark.parametrize(
    ("constant", "prefix", "expected"),
    [
        (
            "self.model.language_model.layers.3.mlp.up_proj._openvino_orig_weight",
            "",
            "model.language_model.layers.3.mlp.up_proj.weight",
        ),
        ("self.lm_head.weight", "", "lm_head.weight"),
        (
            "self.blocks.0.attn.qkv._openvino_orig_weight",
            "model.visual.",
            "model.visual.blocks.0.attn.qkv.weight",
        ),
        ("self.blocks.0.attn.qkv._openvino_orig_weight/zero_point", "model.visual.", None),
        ("self.blocks.0.attn.qkv._openvino_orig_weight/scale", "model.visual.", None),
        ("Constant_135803", "", None),
    ],
)
def test_a_constant_of_openvinos_graph_is_a_tensor_of_the_checkpoint(
    constant: str, prefix: str, expected: str | None
) -> None:
    assert openvino_files.checkpoint_name(constant, prefix) == expected


@pytest.mark.parametrize(
    ("node", "tied", "expected"),
    [
        ("/model/layers.27/attn/o_proj/MatMul_Q4", True, "layers.27.self_attn.o_proj"),
        ("/model/layers.0/mlp/down_proj/MatMul_Q4", False, "layers.0.mlp.down_proj"),
        ("/lm_head/MatMul_Q4", True, "embed_tokens"),
    ],
)
def test_a_matrix_of_the_builders_graph_is_a_tensor_of_the_checkpoint(
    node: str, tied: bool, expected: str
) -> None:
    assert genai_files.checkpoint_name(node, tied=tied) == f"model.language_model.{expected}.weight"


def test_an_untied_head_of_the_builders_graph_is_the_checkpoints_head() -> None:
    assert genai_files.checkpoint_name("/lm_head/MatMul_Q4", tied=False) == "lm_head.weight"
    assert genai_files.checkpoint_name("/vision/MatMul_Q4", tied=False) is None


def test_a_group_is_never_cut_by_the_end_of_a_row() -> None:
    text = Config.read(EMBEDDED_FOLDER).text
    assert openvino_files.group_size(text) == 32
    large = replace(text, hidden=2048, intermediate=6144, heads=16, head_dim=128)
    assert openvino_files.group_size(large) == 128
    with pytest.raises(BackendError, match="divide by 32"):
        openvino_files.group_size(replace(text, hidden=200))


@pytest.mark.parametrize("shape", [(6, 4, 8), (6, 32)])
def test_codes_are_widened_with_the_zeros_and_scales_of_their_groups(shape: tuple[int, ...]) -> None:
    codes = RANDOM.integers(0, 16, shape).astype(np.float32)
    zeros, scales = (RANDOM.random((*shape[:-1], 1), np.float32) for _ in range(2))
    found = openvino_files.widened(codes, zeros, scales)
    assert found.shape == (6, 32)
    for row in range(6):
        flat = np.broadcast_to(zeros[row], shape[1:]).ravel(), np.broadcast_to(scales[row], shape[1:]).ravel()
        np.testing.assert_allclose(found[row], (codes[row].ravel() - flat[0]) * flat[1], rtol=1e-6)
    assert not np.allclose(openvino_files.widened(codes, None, scales), found)


def _builders_graph(folder: Path, weights: Weights, scheme: Scheme, *, wrong: int = 0) -> list[str]:
    """As onnxruntime-genai's builder writes it, with two matrices; ``wrong`` of the codes' bytes are off."""
    names, nodes, tensors = [], [], []
    for node in ("/model/layers.0/mlp/up_proj/MatMul_Q4", "/lm_head/MatMul_Q4"):
        name = genai_files.checkpoint_name(node, tied=False)
        assert name is not None
        matrix = weights.read(name)
        rounded = quantise(matrix, scheme)
        rounded.packed.ravel()[:wrong] ^= 0xFF
        parts = {"B": rounded.packed, "scales": rounded.scales, "zeros": rounded.zeros}
        held = {f"{node}.{key}": value for key, value in parts.items() if value is not None}
        tensors += [numpy_helper.from_array(value, key) for key, value in held.items()]
        sizes = {"K": matrix.shape[1], "N": matrix.shape[0], "bits": scheme.bits, "block_size": scheme.block}
        nodes.append(
            helper.make_node("MatMulNBits", ["x", *held], ["y"], name=node, domain="com.microsoft", **sizes)
        )
        names.append(name)
    folder.mkdir()
    graph = helper.make_graph(nodes, "text", [], [], tensors)
    onnx.save(helper.make_model(graph), folder / genai_files.GRAPH, save_as_external_data=True)
    return names


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_error_of_the_builders_files_is_what_its_rounding_cost(
    checkpoint: Path, tmp_path: Path, symmetric: bool
) -> None:
    weights, scheme = Weights(checkpoint), Scheme(4, 32, symmetric, search=False)
    names = _builders_graph(tmp_path / "right", weights, scheme)
    found = genai_files.errors(tmp_path / "right", checkpoint)
    assert [error.name for error in found] == names
    for error in found:
        matrix = weights.read(error.name)
        kept = dequantise(quantise(matrix, scheme), scheme, matrix.shape[1])
        assert error.error == pytest.approx(np.linalg.norm(matrix - kept) / np.linalg.norm(matrix), rel=1e-5)
        assert (error.bits, error.block) == (4, 32)
    _builders_graph(tmp_path / "wrong", weights, scheme, wrong=64)
    for right, wrong in zip(found, genai_files.errors(tmp_path / "wrong", checkpoint), strict=True):
        assert wrong.error > 1.2 * right.error


def _scripted_tool(log: Path, checkpoint: Path, folder: Path) -> Sequence[MatrixError]:
    with log.open("a") as said:
        said.write("made\n")
    (folder / "model.bin").write_bytes(bytes(10))
    return [MatrixError("model.language_model.layers.0.mlp.up_proj.weight", 4, 32, 0.25)]


def _broken_tool(checkpoint: Path, folder: Path) -> Sequence[MatrixError]:
    (folder / "half.bin").write_bytes(bytes(10))
    raise BackendError("it cannot")


def test_a_checkpoint_is_converted_once_and_again_when_it_changes(tmp_path: Path) -> None:
    source, log = tiny.write(tmp_path / "tiny"), tmp_path / "log"
    tool = partial(_scripted_tool, log)
    for _ in range(2):
        made = prepare(tool, source, tmp_path / "made", SILENT)
        assert made.fidelity.body == 0.25
        assert made.nbytes > 10
        assert log.read_text() == "made\n"
    settings = source / "generation_config.json"
    settings.write_text(settings.read_text() + "\n")
    prepare(tool, source, tmp_path / "made", SILENT)
    assert log.read_text() == "made\n" * 2


def test_a_conversion_that_failed_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="it cannot"):
        prepare(_broken_tool, checkpoint, tmp_path / "made", SILENT)
    assert not list(tmp_path.glob("**/half.bin"))
    assert not (tmp_path / "made").exists()


def test_a_tool_that_fails_is_quoted(tmp_path: Path) -> None:
    log = tmp_path / "tool.log"
    run([sys.executable, "-c", "print('well')"], log)
    assert log.read_text() == "well\n"
    with pytest.raises(BackendError, match=r"no such matrix.*tool\.log has the rest"):
        run([sys.executable, "-c", "print('at work'); raise SystemExit('no such matrix')"], log)


def test_genais_own_loop_says_what_hybrids_loop_says(tmp_path: Path, checkpoint: Path) -> None:
    export_to(tmp_path / "out", Model("tiny", checkpoint), Recipe())
    what = genai_own.GenaiOwn(tmp_path / "out", checkpoint, 1, "int4")
    engine = what()
    ours = LocalConfig("genai", tmp_path / "out", checkpoint, Runtime(device="cpu", threads=1))()
    texts = []
    for question in ("Which red green blue?", "Tell me more."):
        messages = (Message.of("user", question),)
        found, expected = engine.answer(messages, 24), ours.answer(messages, 24)
        assert found.text == expected.text
        assert found.sample.prompt_tokens == expected.sample.prompt_tokens
        assert found.sample.output_tokens == 24
        assert len(found.sample.gaps) == 23
        texts.append(found.text)
    assert texts[0] != texts[1]


def test_genais_own_loop_goes_on_after_an_end_token(tmp_path: Path) -> None:
    export_to(tmp_path / "out", Model("scenes", EMBEDDED_FOLDER), Recipe())
    engine = genai_own.GenaiOwn(tmp_path / "out", EMBEDDED_FOLDER, 1, "int4")()
    found = engine.answer((Message.of("user", "Hello, who are you?"),), 40)
    assert found.sample.output_tokens == 40
    assert found.text.startswith("I am")  # which is said in 13 tokens
    with pytest.raises(RequestError, match="DeepStack"):
        engine.answer((Message.of("user", IMAGE, "What is this?"),), 4)


def test_an_image_is_tagged_at_its_place() -> None:
    messages = (
        Message.of("user", IMAGE, "One, and ", IMAGE),
        Message.of("assistant", "Yes."),
        Message.of("user", "And", IMAGE),
    )
    assert openvino_genai.as_history(messages) == [
        {"role": "user", "content": "<ov_genai_image_0>One, and <ov_genai_image_1>"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "And<ov_genai_image_2>"},
    ]


def test_only_the_held_conversation_itself_is_gone_on_with() -> None:
    first = (Message.of("user", "One"),)
    later = (*first, Message.of("assistant", "1"), Message.of("user", "Two"))
    assert openvino_genai.continues(later, first)
    assert not openvino_genai.continues(later, (Message.of("user", "One"),))
    assert not openvino_genai.continues(first, first)
    assert not openvino_genai.continues(first, ())


class _Pipeline:
    """Counts as OpenVINO's pipeline does, and says ``said`` tokens."""

    def __init__(self, prompt_tokens: int, said: int) -> None:
        self.prompt_tokens, self.said = prompt_tokens, said
        self.calls: list[tuple[object, int, int]] = []

    def generate(self, history, images, generation_config, streamer):
        self.calls.append((history, len(history), len(images)))
        assert generation_config.ignore_eos
        assert not generation_config.do_sample
        streamer.write([1, 2])  # they may come together
        for token in range(self.said - 2):
            streamer.write(token)
        streamer.end()
        raw = SimpleNamespace(prepare_embeddings_durations=[2.5e6], text_embedding_durations=[0.5e6])
        metrics = SimpleNamespace(get_num_input_tokens=lambda: self.prompt_tokens, vlm_raw_metrics=raw)
        return SimpleNamespace(texts=["said"], perf_metrics=metrics)


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    genai, openvino = ModuleType("openvino_genai"), ModuleType("openvino")
    genai.StreamerBase, genai.GenerationConfig = object, SimpleNamespace
    genai.StreamingStatus, genai.ChatHistory = SimpleNamespace(RUNNING=0), list
    openvino.Tensor = lambda pixels: pixels
    monkeypatch.setitem(sys.modules, "openvino_genai", genai)
    monkeypatch.setitem(sys.modules, "openvino", openvino)
    return genai


def _engine(library: ModuleType, pipeline: _Pipeline, checkpoint: Path) -> openvino_genai.OpenVinoEngine:
    library.VLMPipeline = lambda *_args, **_settings: pipeline
    return openvino_genai.OpenVino(checkpoint, checkpoint, 1)()


def test_every_token_of_openvino_is_timed(libraries: ModuleType, checkpoint: Path) -> None:
    messages = (Message.of("user", IMAGE, "What is this?"),)
    plan = PromptBuilder.read(checkpoint).plan(messages)
    pipeline = _Pipeline(len(plan.ids), 5)
    found = _engine(libraries, pipeline, checkpoint).answer(messages, 5).sample
    assert (found.output_tokens, len(found.gaps)) == (5, 4)
    assert found.gaps[0] == 0.0
    assert found.vision_seconds == 2.0
    assert found.patches == plan.grid.prod(axis=1).sum() > 0


@pytest.mark.parametrize(("excess", "said"), [(1, 5), (0, 4)])
def test_openvino_must_read_and_say_what_it_was_asked_to(
    libraries: ModuleType, checkpoint: Path, excess: int, said: int
) -> None:
    messages = (Message.of("user", "What is this?"),)
    count = len(PromptBuilder.read(checkpoint).plan(messages).ids)
    engine = _engine(libraries, _Pipeline(count + excess, said), checkpoint)
    with pytest.raises(BackendError, match="were asked for"):
        engine.answer(messages, 5)


def test_a_follow_up_goes_on_in_openvinos_own_history(libraries: ModuleType, checkpoint: Path) -> None:
    first = (Message.of("user", IMAGE, "What is this?"),)
    later = (*first, Message.of("assistant", "said"), Message.of("user", "And now?"))
    builder = PromptBuilder.read(checkpoint)
    pipeline = _Pipeline(len(builder.plan(first).ids), 3)
    engine = _engine(libraries, pipeline, checkpoint)
    engine.answer(first, 3)
    pipeline.prompt_tokens = len(builder.plan(later).ids)
    engine.answer(later, 3)
    pipeline.prompt_tokens = len(builder.plan(first).ids)
    engine.answer(first, 3)
    histories, lengths, images = zip(*pipeline.calls, strict=True)
    assert (lengths, images) == ((1, 3, 1), (1, 0, 1))
    assert histories[0] is histories[1] is not histories[2]
