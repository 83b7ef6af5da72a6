"""Peers: files for llama.cpp, what it goes on from, transformers' generate, and the table of them all."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from backends.base import BackendError, RequestError, Runtime
from backends.qwen3vl import Config
from backends.store import Weights
from benchmarks.peers import Peer, enter
from benchmarks.peers.__main__ import _telling
from benchmarks.peers.arrivals import sample
from benchmarks.peers.columns import able, columns
from benchmarks.peers.drawing import draw
from benchmarks.peers.gguf_files import is_matrix, stored
from benchmarks.peers.gguf_names import gguf_name
from benchmarks.peers.gguf_tokens import ADDED, CONTROL, NORMAL, UNUSED, merges, tokens
from benchmarks.peers.known import MODULES, chosen, peers
from benchmarks.peers.llama_cpp import Held, LlamaEngine
from benchmarks.peers.table import markdown
from benchmarks.peers.transformers_generate import Arrivals, Transformers, TransformersEngine
from router.bench.contenders import Contender
from router.bench.engine import Facts, LocalConfig
from router.bench.workloads import Size, Workload, Writer, workloads
from router.models import SILENT
from router.prompt import PromptBuilder
from router.types import Message, Picture
from tests import tiny
from tests.bench import benches


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("peers") / "tiny")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.language_model.embed_tokens.weight", "token_embd.weight"),
        ("model.language_model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.language_model.layers.11.post_attention_layernorm.weight", "blk.11.ffn_norm.weight"),
        ("model.language_model.layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight"),
        ("model.visual.blocks.7.mlp.linear_fc2.bias", "v.blk.7.ffn_down.bias"),
        ("model.visual.merger.norm.weight", "v.post_ln.weight"),
        ("model.visual.merger.linear_fc2.weight", "mm.2.weight"),
        ("model.visual.deepstack_merger_list.2.linear_fc1.weight", "v.deepstack.17.fc1.weight"),
    ],
)
def test_a_tensor_has_llama_cpps_name(name: str, expected: str) -> None:
    assert gguf_name(name, (5, 11, 17)) == expected


def test_an_unknown_tensor_has_no_name() -> None:
    with pytest.raises(KeyError):
        gguf_name("model.language_model.layers.0.mlp.experts.weight", ())


def test_every_tensor_stands_in_one_of_the_two_files(checkpoint: Path) -> None:
    weights, config = Weights(checkpoint), Config.read(checkpoint)
    text, vision = (stored(weights, config, vision=vision) for vision in (False, True))
    assert {tensor.source for tensor in (*text, *vision)} == set(weights.names)
    for tensors in (text, vision):
        assert len({tensor.name for tensor in tensors}) == len(tensors)
    assert all(tensor.read(weights).shape == tensor.shape for tensor in (*text, *vision))


def test_the_patch_embedding_becomes_one_kernel_for_each_frame(checkpoint: Path) -> None:
    weights = Weights(checkpoint)
    halves = [t for t in stored(weights, Config.read(checkpoint), vision=True) if t.frame is not None]
    assert [half.name for half in halves] == ["v.patch_embd.weight", "v.patch_embd.weight.1"]
    whole = weights.read("model.visual.patch_embed.proj.weight")
    for frame, half in enumerate(halves):
        assert np.array_equal(half.read(weights), whole[:, :, frame])
    assert not np.array_equal(halves[0].read(weights), halves[1].read(weights))


def test_norms_and_places_are_no_matrices(checkpoint: Path) -> None:
    weights, config = Weights(checkpoint), Config.read(checkpoint)
    plain = {t.name for t in stored(weights, config, vision=True) if not is_matrix(t)}
    assert "v.position_embd.weight" in plain
    assert "v.blk.0.ln1.weight" in plain
    assert "v.blk.0.attn_qkv.weight" not in plain


def test_every_id_has_a_token_and_its_kind() -> None:
    tokenizer = {
        "model": {"vocab": {"a": 0, "b": 1}, "merges": [["a", "b"], "b a"]},
        "added_tokens": [
            {"id": 3, "content": "<|im_end|>", "special": True},
            {"id": 4, "content": "<think>", "special": False},
        ],
    }
    names, kinds = tokens(tokenizer, 6)
    assert names == ["a", "b", "[PAD2]", "<|im_end|>", "<think>", "[PAD5]"]
    assert kinds == [NORMAL, NORMAL, UNUSED, CONTROL, ADDED, UNUSED]
    assert merges(tokenizer) == ["a b", "b a"]


def _conversation(builder: PromptBuilder, *messages: Message) -> Held:
    plan = builder.plan(messages)
    return Held(plan, np.append(plan.ids, [5, 6, 7]))


def test_llama_cpp_goes_on_from_a_conversation_it_holds_and_from_no_other(checkpoint: Path) -> None:
    builder = PromptBuilder.read(checkpoint)
    pixels = np.zeros((64, 64, 3), np.uint8)
    asked = Message.of("user", Picture(pixels), "Which colour?")
    held = _conversation(builder, asked)
    follow_up = builder.plan((asked, Message.of("assistant", "red"), Message.of("user", "And?")))
    start = len(held.plan.ids)
    assert start <= held.common(follow_up) < len(follow_up.ids)
    other = Message.of("user", Picture(pixels + 1), "Which colour?")
    assert held.common(builder.plan((other, *_rest()))) == 0
    assert held.common(builder.plan((Message.of("user", "Which colour?"), *_rest()))) == 0


def _rest() -> tuple[Message, Message]:
    return Message.of("assistant", "red"), Message.of("user", "And?")


def test_the_last_token_of_a_prompt_is_always_read(checkpoint: Path) -> None:
    held = _conversation(PromptBuilder.read(checkpoint), Message.of("user", "Which colour?"))
    assert held.common(held.plan) == len(held.plan.ids) - 1


class Scripted:
    """Says tokens 5, 6, 7 and so on, and keeps what it was told to do."""

    def __init__(self, room: int = 10_000) -> None:
        self.done: list[tuple[object, ...]] = []
        self._room = room
        self._next = 5

    def make_room(self, tokens: int) -> bool:
        return tokens <= self._room

    def keep(self, position: int) -> None:
        self.done.append(("keep", position))

    def read(self, ids: np.ndarray, position: int) -> None:
        self.done.append(("read", ids.tolist(), position))

    def look(self, pixels: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(tokens=pixels.shape[0] * pixels.shape[1] // 32**2)

    def encode(self, look: SimpleNamespace) -> None:
        self.done.append(("encode", look.tokens))

    def place(self, look: SimpleNamespace, position: int) -> None:
        self.done.append(("place", look.tokens, position))

    def best(self) -> int:
        self._next += 1
        return self._next - 1


def _engine(checkpoint: Path, library: Scripted) -> LlamaEngine:
    return LlamaEngine(library, PromptBuilder.read(checkpoint), Facts())  # type: ignore[arg-type]


def test_llama_cpp_reads_a_prompt_and_its_image_where_they_stand(checkpoint: Path) -> None:
    library = Scripted()
    asked = (Message.of("user", "Look.", Picture(np.zeros((128, 160, 3), np.uint8)), "Which colour?"),)
    builder = PromptBuilder.read(checkpoint)
    plan = builder.plan(asked)
    [(first, end)] = plan.spans.tolist()
    answer = _engine(checkpoint, library).answer(asked, 3)
    ids, side = plan.ids.tolist(), 5  # an image of 4 x 5 places moves what follows by 5
    assert library.done == [
        ("keep", 0),
        ("read", ids[:first], 0),
        ("encode", 20),
        ("place", 20, first),
        ("read", ids[end:], first + side),
        ("read", [5], first + side + len(ids) - end),
        ("read", [6], first + side + len(ids) - end + 1),  # the last token is not read
    ]
    assert answer.text == builder.tokenizer.decode([5, 6, 7])
    assert (answer.sample.output_tokens, answer.sample.patches, answer.sample.cached_tokens) == (3, 80, 0)
    assert answer.sample.prompt_tokens == len(ids)


def test_llama_cpp_reads_of_a_follow_up_what_is_new_and_of_others_all(checkpoint: Path) -> None:
    library = Scripted()
    engine = _engine(checkpoint, library)
    asked = Message.of("user", Picture(np.zeros((128, 160, 3), np.uint8)), "Which colour?")
    engine.answer((asked,), 3)
    library.done.clear()
    follow_up = (asked, Message.of("assistant", "red"), Message.of("user", "And?"))
    plan = PromptBuilder.read(checkpoint).plan(follow_up)
    kept = engine.answer(follow_up, 2).sample.cached_tokens
    assert 0 < kept < len(plan.ids)
    shift = 20 - 5  # the image has 20 places and 5 positions
    assert library.done[:2] == [("keep", kept - shift), ("read", plan.ids[kept:].tolist(), kept - shift)]
    library.done.clear()
    assert engine.answer((Message.of("user", "Something else."),), 2).sample.cached_tokens == 0
    assert library.done[0] == ("keep", 0)


def test_an_image_of_another_size_than_the_others_read_is_refused(checkpoint: Path) -> None:
    asked = (Message.of("user", Picture(np.zeros((32, 32, 3), np.uint8)), "Which colour?"),)
    with pytest.raises(BackendError, match=r"brings this image to 1 tokens, the others to \d+"):
        _engine(checkpoint, Scripted()).answer(asked, 2)


def test_llama_cpp_holds_nothing_after_it_made_more_room(checkpoint: Path) -> None:
    library = Scripted(room=0)
    engine = _engine(checkpoint, library)
    asked = Message.of("user", "Which colour?")
    engine.answer((asked,), 3)
    follow_up = (asked, Message.of("assistant", "red"), Message.of("user", "And?"))
    assert engine.answer(follow_up, 3).sample.cached_tokens == 0


def test_a_sample_is_timed_by_its_arrivals() -> None:
    found = sample(128, 10.0, [10.5, 10.75, 11.5])
    assert (found.first_token_seconds, found.decode_seconds) == (0.5, 1.0)
    assert found.gaps == (0.25, 0.75)
    assert found.output_tokens == 3


def test_the_streamer_passes_over_the_prompt() -> None:
    arrivals = Arrivals()
    for number in range(4):
        arrivals.put(number)  # type: ignore[arg-type]
    arrivals.end()
    assert len(arrivals.at) == 3
    assert arrivals.at == sorted(arrivals.at)


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> TransformersEngine:
    return Transformers(checkpoint, "fp32", 1)()


@pytest.mark.parametrize("workload", workloads((64,), 6, (Size(96, 64),), (1, 2), ()), ids=lambda w: w.name)
def test_generate_answers_as_the_torch_backend(
    engine: TransformersEngine, checkpoint: Path, workload: Workload
) -> None:
    ours = LocalConfig("torch", checkpoint, checkpoint, Runtime(device="cpu", dtype="fp32", threads=1))()
    job = Writer(PromptBuilder.read(checkpoint), seed=1).job(workload)
    theirs, mine = (each.answer(job.conversations[0], 6) for each in (engine, ours))
    assert theirs.text == mine.text
    other = Writer(PromptBuilder.read(checkpoint), seed=2).job(workload)
    assert engine.answer(other.conversations[0], 6).text != theirs.text  # the control: another request
    for name in ("prompt_tokens", "output_tokens", "patches"):
        assert getattr(theirs.sample, name) == getattr(mine.sample, name)
    assert bool(workload.images) == (theirs.sample.vision_seconds > 0)


def test_the_end_token_does_not_end_an_answer(engine: TransformersEngine) -> None:
    asked = (Message.of("user", "Which?"),)
    first = engine.model.generation_config.eos_token_id
    usual = engine.answer(asked, 5)
    engine.model.generation_config.eos_token_id = list(range(1000))
    try:
        unusual = engine.answer(asked, 5)
    finally:
        engine.model.generation_config.eos_token_id = first
    assert usual.sample.output_tokens == unusual.sample.output_tokens == 5


def _peer(name: str, module: str = "json", problem: str | None = None) -> Peer:
    def contender(*_: object) -> Contender:
        if problem is not None:
            raise RequestError(problem)
        return Contender(name)

    return Peer(name, module, f"pip install {module}", contender)


def test_a_peer_that_is_not_installed_says_how_to(tmp_path: Path) -> None:
    found = enter(_peer("a", "no_such_library"), tmp_path, tmp_path, 1, SILENT)
    assert found.problem == "no_such_library is not installed: pip install no_such_library"
    assert enter(_peer("a"), tmp_path, tmp_path, 1, SILENT).problem is None


def test_a_peer_that_cannot_convert_says_why(tmp_path: Path) -> None:
    assert enter(_peer("a", problem="too large"), tmp_path, tmp_path, 1, SILENT).problem == "too large"


def test_names_choose_all_peers_that_begin_with_them() -> None:
    known = [_peer(name) for name in ("hybrid-onnx", "hybrid-genai", "llama.cpp")]
    assert [peer.name for peer in chosen(known, ("llama", "hybrid"))] == [
        "llama.cpp",
        "hybrid-onnx",
        "hybrid-genai",
    ]
    with pytest.raises(RequestError, match=r"no peer 'vllm'; there are hybrid-onnx"):
        chosen(known, ("hybrid", "vllm"))


def test_a_whole_name_chooses_that_peer_alone() -> None:
    known = [_peer(name) for name in ("hybrid-onnx-fast", "hybrid-onnx-fast-prefill")]
    assert chosen(known, ("hybrid-onnx-fast",)) == tuple(known[:1])
    assert chosen(known, ("hybrid-onnx-f",)) == tuple(known)


def test_every_peer_has_a_name_of_its_own() -> None:
    names = [peer.name for peer in peers()]
    assert len(set(names)) == len(names) >= len(MODULES)
    assert names[0].startswith("hybrid-")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_a_row_for_each_that_ran_and_a_reason_for_each_that_did_not() -> None:
    lines = markdown(benches.report()).splitlines()
    head, onnx = _cells(lines[0]), _cells(next(line for line in lines if line.startswith("| onnx")))
    assert head == [
        "",
        "decode tok/s",
        "prefill tok/s 128",
        "prefill tok/s 512",
        "vision patches/s 2 x 64x32",
        "TTFT s 2 x 64x32",
        "peak GB",
        "disk GB",
        "weight error body / head / vision",
    ]
    # 4 tokens in 0.8 s; 128 in 0.64 s; 512 in 1.28 s; 800 patches in 0.5 s; the first token after 1 s
    assert onnx == ["onnx", "5", "200", "400", "1600", "1", "0.500", "0.003", "0.077 / 0.006 / 0.005"]
    assert "- genai cannot run: onnxruntime_genai not installed: pip install onnxruntime-genai" in lines
    torch = _cells(next(line for line in lines if line.startswith("| torch")))
    assert torch[4:6] == ["-", "-"]
    assert "- torch, 2 images 64x32: it reads text only" in lines
    assert not any(line.startswith("| genai") for line in lines)


def test_the_table_says_where_and_how_it_was_measured() -> None:
    text = markdown(benches.report())
    for said in (
        "A Processor (avx2), 2 threads, 8 GiB",
        "numpy 2.4.6",
        "`hybrid bench -m tiny`",
        "2026-01-02",
    ):
        assert said in text
    assert "others computed" in markdown(benches.report(notes=("others computed",)))


def test_a_figure_is_a_median_and_not_the_last() -> None:
    (line,) = [line for line in markdown(benches.report()).splitlines() if line.startswith("| torch")]
    assert _cells(line)[1] == "1.25"  # 4 tokens in 0.8 s, slower by 4, 5 and 3


def test_the_plot_has_a_panel_for_each_figure_and_a_bar_for_each_that_has_it(tmp_path: Path) -> None:
    draw(benches.report(), tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert (tmp_path / "a.svg").stat().st_size > 10_000
    made = benches.report()
    told = {column.title: column for column in columns(made)}
    seen = told["vision patches/s 2 x 64x32"]
    assert [one.name for one in able(made) if seen.spread(one)] == ["onnx"]
    assert told["TTFT s 2 x 64x32"].more_is_better is False
    assert "<svg" in drawn


def test_the_command_is_told_without_what_changes_no_figure() -> None:
    said = ["-m", "tiny", "--save", "a.json", "-r", "3", "--plot", "b.png", "--work", "w"]
    assert _telling(said) == ["-m", "tiny", "-r", "3"]
