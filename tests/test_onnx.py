"""The onnx backend against transformers, picture features coming from transformers' own tower."""

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
ort = pytest.importorskip("onnxruntime")

from backends import BackendError, Prompt, Runtime  # noqa: E402
from backends.export import Recipe, export  # noqa: E402
from backends.ort import session as session_module  # noqa: E402
from backends.ort.backend import OnnxBackend  # noqa: E402
from backends.ort.decoder import Decoder  # noqa: E402
from backends.ort.embeddings import Embeddings  # noqa: E402
from backends.ort.features import FeatureCache, Features  # noqa: E402
from backends.ort.session import OnnxSession  # noqa: E402
from backends.qwen3vl.config import Config  # noqa: E402
from tests import tiny  # noqa: E402
from tests.test_pytorch import LAYOUTS, picture, prompt_of, reference, say  # noqa: E402

MIXED = (
    say(
        *(
            picture(width * 16, height * 16, seed)
            for seed, (height, width) in enumerate([(16, 16), (18, 24)])
        ),
        "Look at these, and at this.",
        picture(60 * 16, 2 * 16, 9),
        "What changed?",
    ),
)


class Tower:
    """transformers' picture tower in the place of the exported one."""

    def __init__(self, model: "torch.nn.Module") -> None:
        self.visual = model.model.visual
        self.seen = 0

    def encode(self, patches: np.ndarray, grid: np.ndarray, run_options: object = None) -> Features:
        self.seen += len(grid)
        with torch.inference_mode():
            out = self.visual(torch.from_numpy(patches), grid_thw=torch.from_numpy(grid), return_dict=True)
        return Features(out.pooler_output.numpy(), tuple(each.numpy() for each in out.deepstack_features))


def load(folder: Path, model: "torch.nn.Module") -> OnnxBackend:
    decoder = Decoder(folder, Runtime(device="cpu", threads=1))
    embeddings = Embeddings.read(folder, decoder.notes["embeddings"])
    return OnnxBackend(Config.read(folder), decoder, embeddings, Tower(model))


class Models(NamedTuple):
    folder: Path  # the checkpoint
    out: Path  # its export
    backend: OnnxBackend


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder, out = tmp_path_factory.mktemp("checkpoint"), tmp_path_factory.mktemp("export")
    export(tiny.write(folder), out, Recipe(precision="fp32"))
    return Models(folder, out, load(out, tiny.model()))


@pytest.fixture(scope="module")
def loaded(models: Models) -> OnnxBackend:
    """The export with its own tower."""
    return OnnxBackend.load(models.out, Runtime(device="cpu", threads=2))


def scores(session: OnnxSession, prompt: Prompt, tokens: list[int]) -> np.ndarray:
    return np.stack([session.prefill(prompt), *(session.decode(token) for token in tokens[:-1])])


def greedy(session: OnnxSession, prompt: Prompt, count: int) -> list[int]:
    tokens = [int(session.prefill(prompt).argmax())]
    while len(tokens) < count:
        tokens.append(int(session.decode(tokens[-1]).argmax()))
    return tokens


@pytest.mark.parametrize("layout", [*LAYOUTS, "mixed sizes"])
def test_greedy_tokens_and_scores_equal_transformers(models: Models, layout: str) -> None:
    messages = MIXED if layout == "mixed sizes" else LAYOUTS[layout]
    tokens, logits = reference(models.folder, messages)
    prompt = prompt_of(models.folder, messages)
    with closing(models.backend.open(1024)) as session:
        assert np.abs(scores(session, prompt, tokens) - logits.numpy()).max() <= 1e-4
    with closing(models.backend.open(1024)) as session:
        assert greedy(session, prompt, len(tokens)) == tokens
    assert len(set(tokens)) >= 3


def flat_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.qwen3vl.positions import positions

    def flat(tokens: int, *_: object) -> object:
        return positions(tokens, None, None, 2)

    monkeypatch.setattr(session_module, "positions", flat)


def no_deepstack(monkeypatch: pytest.MonkeyPatch) -> None:
    place = OnnxSession._place

    def blind(self: OnnxSession, *args: object) -> list[np.ndarray]:
        return [np.zeros_like(added) for added in place(self, *args)]  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxSession, "_place", blind)


def shifted_features(monkeypatch: pytest.MonkeyPatch) -> None:
    see = OnnxSession._see

    def rolled(self: OnnxSession, prompt: Prompt) -> object:
        features = see(self, prompt)
        assert features is not None
        return features._replace(main=np.roll(features.main, 1, 0))

    monkeypatch.setattr(OnnxSession, "_see", rolled)


@pytest.mark.parametrize("damage", [flat_positions, no_deepstack, shifted_features])
def test_a_wrong_position_or_feature_breaks_the_equality(
    models: Models, monkeypatch: pytest.MonkeyPatch, damage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    tokens, logits = reference(models.folder, LAYOUTS["one picture"])
    damage(monkeypatch)
    with closing(models.backend.open(1024)) as session:
        ours = scores(session, prompt_of(models.folder, LAYOUTS["one picture"]), tokens)
    assert np.abs(ours - logits.numpy()).max() > 1e-2


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_reading_in_chunks_equals_reading_at_once(
    models: Models, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    prompt, tokens = prompt_of(models.folder, LAYOUTS["two pictures"]), list(range(300, 306))
    with closing(models.backend.open(1024)) as session:
        whole = scores(session, prompt, tokens)
    monkeypatch.setattr(session_module, "CHUNK", chunk)
    with closing(models.backend.open(1024)) as session:
        assert np.abs(scores(session, prompt, tokens) - whole).max() <= 2e-5


def test_interleaved_sessions_equal_their_solo_runs(models: Models) -> None:
    prompts = [prompt_of(models.folder, LAYOUTS[layout]) for layout in ("one picture", "two pictures")]
    tokens = list(range(300, 312))
    solo = []
    for prompt in prompts:
        with closing(models.backend.open(1024)) as session:
            solo.append(scores(session, prompt, tokens))
    first, second = models.backend.open(1024), models.backend.open(512)
    mixed = [[first.prefill(prompts[0])], [second.prefill(prompts[1])]]
    for token in tokens[:-1]:
        mixed[0].append(first.decode(token))
        mixed[1].append(second.decode(token))
    assert np.array_equal(np.stack(mixed[0]), solo[0])
    assert np.array_equal(np.stack(mixed[1]), solo[1])
    assert np.abs(solo[0] - solo[1]).max() > 1e-2


class Stopwatch:
    """Closes a session from another thread as soon as its run has begun."""

    def __init__(self, session: OnnxSession) -> None:
        self.session = session
        self.thread = threading.Thread(target=self._stop)
        self.stopped = 0.0

    def __enter__(self) -> "Stopwatch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join()

    def _stop(self) -> None:
        while self.session._running is None:
            time.sleep(0.0005)
        self.stopped = time.perf_counter()
        self.session.close()


def test_closing_stops_a_prefill_and_leaves_the_backend_whole(models: Models) -> None:
    prompt = prompt_of(models.folder, LAYOUTS["one picture"])
    long = Prompt(np.tile(np.arange(1000), 20))
    with closing(models.backend.open(1024)) as session:
        fresh = scores(session, prompt, [300, 301])
    session = models.backend.open(len(long.ids))
    with Stopwatch(session) as watch, pytest.raises(BackendError, match="closed") as raised:
        session.prefill(long)
    assert time.perf_counter() - watch.stopped < 1
    assert raised.value.code == "cancelled"
    with closing(models.backend.open(1024)) as session:
        assert np.array_equal(scores(session, prompt, [300, 301]), fresh)


class Slow:
    """A tower that works until it is told to stop."""

    def encode(self, patches: np.ndarray, grid: np.ndarray, run_options: Any = None) -> Features:
        while not run_options.terminate:
            time.sleep(0.0005)
        raise BackendError("stopped")


def test_closing_stops_a_picture_too(models: Models) -> None:
    whole = models.backend
    backend = OnnxBackend(Config.read(models.out), whole.decoder, whole.embeddings, Slow())
    session = backend.open(1024)
    with Stopwatch(session), pytest.raises(BackendError, match="closed") as raised:
        session.prefill(prompt_of(models.folder, LAYOUTS["one picture"]))
    assert raised.value.code == "cancelled"


def test_a_closed_session_says_so(models: Models) -> None:
    session = models.backend.open(64)
    session.prefill(Prompt(np.arange(5)))
    session.close()
    session.close()
    with pytest.raises(BackendError, match="the session was closed"):
        session.decode(1)


def test_a_session_holds_no_more_than_it_was_opened_for(models: Models) -> None:
    with closing(models.backend.open(6)) as session:
        session.prefill(Prompt(np.arange(5)))
        session.decode(1)
        with pytest.raises(BackendError, match="opened for 6 tokens"):
            session.decode(1)


def test_a_second_prefill_starts_over(models: Models) -> None:
    with closing(models.backend.open(64)) as session:
        first = scores(session, Prompt(np.arange(9)), [1, 2])
        scores(session, Prompt(np.arange(20, 50)), [3])
        assert np.array_equal(scores(session, Prompt(np.arange(9)), [1, 2]), first)


def test_a_picture_is_encoded_once(models: Models) -> None:
    tower = Tower(tiny.model())
    cache = FeatureCache(tower)
    prompt = prompt_of(models.folder, LAYOUTS["two pictures"])
    assert prompt.patches is not None
    assert prompt.grid is not None
    first = cache.encode(prompt.patches, prompt.grid)
    again = cache.encode(prompt.patches, prompt.grid)
    assert tower.seen == 2
    assert np.array_equal(first.main, again.main)
    whole = tower.encode(prompt.patches, prompt.grid)
    assert np.abs(first.main - whole.main).max() < 1e-5
    assert np.abs(first.deepstack[2] - whole.deepstack[2]).max() < 1e-5


def test_the_same_values_in_another_grid_are_another_picture() -> None:
    tower, patches = Tower(tiny.model()), np.zeros((8, 1536), np.float32)
    cache = FeatureCache(tower)
    for grid in ([1, 2, 4], [1, 4, 2], [1, 2, 4]):
        cache.encode(patches, np.array([grid]))
    assert tower.seen == 2


def test_kept_features_stay_within_their_bytes() -> None:
    tower = Tower(tiny.model())
    size = tower.encode(np.zeros((16, 1536), np.float32), np.array([[1, 4, 4]])).nbytes
    cache = FeatureCache(tower, kept_bytes=2 * size)
    tower.seen = 0
    for value in (0, 1, 0, 2, 0, 1):  # the third picture drives out 1, which was used longest ago
        cache.encode(np.full((16, 1536), value, np.float32), np.array([[1, 4, 4]]))
    assert tower.seen == 4


def test_the_whole_backend_is_loaded_from_its_folder(models: Models, loaded: OnnxBackend) -> None:
    prompt = prompt_of(models.folder, LAYOUTS["two pictures"])
    assert loaded.decoder.session.get_session_options().intra_op_num_threads == 2
    with closing(loaded.open(1024)) as session, closing(models.backend.open(1024)) as other:
        assert np.abs(scores(session, prompt, [300, 301]) - scores(other, prompt, [300, 301])).max() <= 1e-4
        assert session.vision_seconds > 0
        session.prefill(Prompt(np.arange(5)))
        assert session.vision_seconds == 0


GRIDS = [(16, 16), (24, 24), (18, 24), (2, 60), (64, 96)]


def pictured(grids: list[tuple[int, int]]) -> Prompt:
    """Pictures of noise, each between two pieces of text."""
    ids, spans = [5, 6, 7], []
    for index, (height, width) in enumerate(grids):
        ids += [1019]
        spans.append((len(ids), len(ids) + height * width // 4))
        ids += [1022] * (height * width // 4) + [1020, 300 + index, 301]
    rng = np.random.default_rng(len(grids))
    patches = rng.uniform(-1, 1, (sum(h * w for h, w in grids), 1536)).astype(np.float32)
    return Prompt(np.array(ids), patches, np.array([(1, *grid) for grid in grids]), np.array(spans))


def whole_model(prompt: Prompt, tokens: list[int]) -> np.ndarray:
    """transformers' scores [tokens, vocab], with the positions that it finds itself."""
    ids = torch.from_numpy(np.concatenate([prompt.ids, tokens[:-1]]))[None]
    with torch.inference_mode():
        logits = tiny.model()(
            input_ids=ids,
            pixel_values=torch.from_numpy(prompt.patches),
            image_grid_thw=torch.from_numpy(prompt.grid),
            mm_token_type_ids=(ids == 1022).int(),
        ).logits
    return logits[0, len(prompt.ids) - 1 :].numpy()


@pytest.mark.parametrize("grids", [*([grid] for grid in GRIDS), GRIDS[:4], GRIDS[::-1]], ids=str)
def test_every_grid_and_mixes_of_them_equal_transformers(
    models: Models, loaded: OnnxBackend, grids: list[tuple[int, int]]
) -> None:
    prompt, tokens = pictured(grids), [310, 311, 312]
    with closing(loaded.open(len(prompt.ids) + 3)) as session:
        ours = scores(session, prompt, tokens)
    assert np.abs(ours - whole_model(prompt, tokens)).max() <= 1e-4


@pytest.mark.parametrize("name", ["decoder.onnx", "weights.data", "vision.onnx"])
def test_a_missing_file_is_named(models: Models, tmp_path: Path, name: str) -> None:
    for file in models.out.iterdir():
        if file.name != name:
            shutil.copy(file, tmp_path)
    with pytest.raises(BackendError, match=f"{name} is missing; export the model again"):
        OnnxBackend.load(tmp_path, Runtime(device="cpu"))


@pytest.mark.parametrize("name", ["decoder.onnx", "weights.data", "vision.onnx", "vision.data"])
def test_a_file_cut_short_is_no_crash(models: Models, tmp_path: Path, name: str) -> None:
    for file in models.out.iterdir():
        shutil.copy(file, tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BackendError) as raised:
        OnnxBackend.load(tmp_path, Runtime(device="cpu"))
    assert raised.value.code == "model_invalid"


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this package has CUDA")
def test_a_package_without_cuda_is_named(models: Models) -> None:
    with pytest.raises(BackendError, match="no CUDA; install onnxruntime-gpu"):
        OnnxBackend.load(models.out, Runtime(device="cuda"))


def test_a_token_outside_the_vocabulary_is_refused(models: Models) -> None:
    with closing(models.backend.open(8)) as session, pytest.raises(BackendError, match="outside 0 to 1023"):
        session.prefill(Prompt(np.array([1024])))
