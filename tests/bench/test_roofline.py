"""What a model must read and compute, and what share of a machine that is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from backends.base import BackendError
from backends.qwen3vl import Config, TextConfig, VisionConfig
from backends.store import Weights
from router.bench import rates, roofline
from router.bench.metrics import measured
from router.bench.rates import COLUMNS, INNER, OPERATIONS, ROWS, least_seconds, weight_bytes, write_probes
from router.bench.roofline import (
    Rates,
    Shares,
    Traffic,
    cache_values,
    layer_weights,
    measure_rates,
    plain_traffic,
    prefill_operations,
    shares,
    vision_operations,
)
from router.models import ensure_export, find
from tests.bench.benches import FOLLOW_UP, IMAGE, SAMPLE, SEEN, TEXT, turn

SCENES = find().folder
CONFIG = Config.read(SCENES)


def sizes(part: str, *, without: str = "nothing") -> int:
    """How many values the checkpoint's matrices have whose names hold ``part``."""
    weights = Weights(SCENES)
    shapes = [weights.shape(name) for name in weights.names if part in name and without not in name]
    return sum(int(np.prod(shape)) for shape in shapes if len(shape) > 1)


def test_the_weights_by_formula_are_those_of_the_checkpoint() -> None:
    assert layer_weights(CONFIG.text) == sizes(".layers.")
    head = sizes("embed_tokens")
    assert plain_traffic(CONFIG.text, 2) == Traffic(
        2 * (sizes(".layers.") + head),
        2 * 2 * CONFIG.text.layers * CONFIG.text.kv_heads * CONFIG.text.head_dim,
    )


def test_the_tower_s_operations_by_formula_are_those_of_its_matrices() -> None:
    patches = 100
    merged = sizes("visual.merger") + sizes("visual.deepstack_merger")
    apart = sizes("visual.") - merged - sizes("visual.pos_embed")
    attention = 4 * CONFIG.vision.depth * CONFIG.vision.hidden * patches**2
    by_hand = 2 * patches * apart + 2 * (patches // 4) * merged + attention
    assert vision_operations(CONFIG.vision, patches) == by_hand


TINY = TextConfig(
    hidden=4, layers=2, heads=2, kv_heads=1, head_dim=3, intermediate=5, vocab=7, context=99,
    rms_norm_eps=1e-6, rope_theta=1.0, mrope_section=(1, 0, 0), tie=True,
)  # fmt: skip


def test_prefill_by_hand() -> None:
    # a layer: q and o 4 x 6, k and v 4 x 3, gate, up and down 4 x 5
    assert layer_weights(TINY) == 2 * (24 + 24 + 12 + 12 + 60)
    products = 2 * 264 * 3 + 2 * 4 * 7
    attended = 1 + 2 + 3
    assert prefill_operations(TINY, 3) == products + 4 * 2 * 2 * 3 * attended
    # after ten tokens that are kept each of the three attends to those too
    assert prefill_operations(TINY, 3, 10) == products + 4 * 2 * 2 * 3 * (11 + 12 + 13)
    assert cache_values(TINY) == 2 * 2 * 1 * 3
    assert Traffic(1000, 24).bytes(10) == 1240


def test_an_image_by_hand() -> None:
    tower = VisionConfig(
        hidden=8, depth=3, heads=2, intermediate=10, out_hidden=6, patch=16, temporal_patch=2, merge=2,
        position_embeddings=16, deepstack=(1,),
    )  # fmt: skip
    each = 1536 * 8 + 3 * (4 * 64 + 2 * 80)
    merging = 2 * (32 * 32 + 32 * 6)
    assert vision_operations(tower, 12) == 2 * 12 * each + 2 * 3 * merging + 4 * 3 * 8 * 144


def test_the_bytes_of_a_token_are_those_of_the_matrices_in_the_graph() -> None:
    folder = ensure_export(find())
    read = weight_bytes(folder / "decoder.onnx")
    text = CONFIG.text
    # 4 bits and, for each 32 values, a float32 scale and half a byte of zero point; the head 8 bits by 64
    body = layer_weights(text) * (0.5 + 4.5 / 32)
    head = text.hidden * text.vocab * (1 + 5 / 64)
    assert read == pytest.approx(body + head, rel=0.01)
    # the embeddings are gathered from: tied ones are the head, and count once
    assert weight_bytes(folder / "text.onnx") == read


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xff\xff")
    for name in ("broken.onnx", "missing.onnx"):
        with pytest.raises(BackendError, match=name):
            weight_bytes(tmp_path / name)


RATES = Rates(2, 1e6, {"fp32": 1e5, "int8": 4e6})


def test_shares_on_given_numbers() -> None:
    found = measured([turn(SEEN)])
    reached = shares(CONFIG, IMAGE, found, Traffic(100_000, 10), RATES)
    assert reached.token_bytes == pytest.approx(100_000 + 10 * (164 + 2.5))
    assert reached.decode == pytest.approx(5 * (100_000 + 10 * (164 + 2.5)) / 1e6)
    assert reached.prefill == pytest.approx(prefill_operations(CONFIG.text, 164) / 0.4 / 4e6)
    assert reached.vision == pytest.approx(2 * vision_operations(CONFIG.vision, 400) / 0.5 / 4e6)
    follow_up = measured([turn(SAMPLE, cached_tokens=100)])
    reached = shares(CONFIG, FOLLOW_UP, follow_up, None, RATES)
    assert reached.prefill == pytest.approx(prefill_operations(CONFIG.text, 28, 100) / 0.64 / 4e6)
    assert (reached.decode, reached.vision) == (None, None)
    assert shares(CONFIG, TEXT, {}, Traffic(1, 1), RATES) == Shares()
    assert shares(CONFIG, replace(TEXT, streams=2), found, Traffic(1, 1), RATES) == Shares()
    assert Rates(2, 1.0).best_matrix == 0


def test_every_probe_multiplies_what_it_says(tmp_path: Path) -> None:
    x = np.random.default_rng(1).integers(0, 100, (ROWS, INNER)).astype(np.float32)
    products = {}
    for probe in write_probes(tmp_path):
        session = ort.InferenceSession(probe.file, providers=["CPUExecutionProvider"])
        (products[probe.name],) = session.run(None, {"x": x.astype(probe.x)})
        assert products[probe.name].shape == (ROWS, COLUMNS)
    matrix = np.random.default_rng(0).standard_normal((INNER, COLUMNS), np.float32)
    assert np.allclose(products["fp32 MatMul"], x @ matrix, rtol=1e-3, atol=0.1)
    codes = np.random.default_rng(0).integers(-127, 128, (INNER, COLUMNS), np.int8)
    assert np.array_equal(products["int8 MatMulInteger"][:4], x[:4].astype(np.int64) @ codes.astype(np.int64))
    assert OPERATIONS == 2 * ROWS * INNER * COLUMNS


def test_the_best_of_several_tries_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    took = iter([9.0, 3.0, 2.0, 4.0, 1.0])
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def work() -> None:
        now[0] += next(took)

    assert least_seconds(work, 6.0) == 2.0  # 9 to warm up, then 3, 2 and 4: the fifth would begin too late


def test_all_of_the_buffer_is_read_by_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def once(work, seconds: float) -> float:
        work()
        return 0.5

    monkeypatch.setattr(rates, "LEAST_BYTES", 1 << 20)
    monkeypatch.setattr(rates, "least_seconds", once)
    monkeypatch.setattr(rates.np, "max", lambda part: read.append(part.nbytes))
    assert rates.read_bandwidth(3) == (1 << 20) / 0.5
    assert len(read) == 3
    assert sum(read) == 1 << 20
    assert rates.read_bandwidth(1, cache_bytes=1 << 19) == (1 << 22) / 0.5


def _fails(threads: int, cache_bytes: int | None) -> Rates:
    raise MemoryError("too little")


def test_a_machine_that_cannot_be_measured_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "measure_here", _fails)
    with pytest.raises(BackendError, match="MemoryError: too little"):
        measure_rates(1, None)
