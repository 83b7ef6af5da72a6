"""The vision tower as the onnx backend runs it, on onnxruntime and in PyTorch."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
ort = pytest.importorskip("onnxruntime")

from backends.base import BackendError, Runtime  # noqa: E402
from backends.export.graph import FLOAT, DataFile, Graph  # noqa: E402
from backends.machine import Processor  # noqa: E402
from backends.onnx.decoder import int8_options  # noqa: E402
from backends.onnx.torch_vision import TorchVisionEncoder  # noqa: E402
from backends.onnx.vision import VisionEncoder  # noqa: E402
from backends.qwen3vl import Config, VisionConfig  # noqa: E402
from tests import tiny  # noqa: E402
from tests.qwen3vl import towers  # noqa: E402

RUNTIME = Runtime(device="cpu", dtype="fp32", threads=2)
MIXED: list[towers.Grid] = [(16, 16), (2, 60), (24, 18), (16, 16), (18, 24), (2, 2)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def config(checkpoint: Path) -> VisionConfig:
    return Config.read(checkpoint).vision


@pytest.fixture(scope="module")
def visual() -> Any:
    return tiny.model().model.visual


@pytest.fixture(scope="module")
def exports(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("fp32", "int8")}
    for name, folder in folders.items():
        towers.export(checkpoint, folder, name)  # type: ignore[arg-type]
    return folders


@pytest.fixture(scope="module", params=["onnxruntime", "torch"])
def encoder(
    request: pytest.FixtureRequest, checkpoint: Path, exports: dict[str, Path], config: VisionConfig
) -> Any:
    if request.param == "torch":
        return TorchVisionEncoder(checkpoint, RUNTIME)
    return VisionEncoder(exports["fp32"], config, RUNTIME)


@pytest.fixture(scope="module")
def rounded(exports: dict[str, Path], config: VisionConfig) -> VisionEncoder:
    return VisionEncoder(exports["int8"], config, RUNTIME)


def test_images_of_many_sizes_in_one_request_equal_transformers(encoder: Any, visual: Any) -> None:
    values, grid = towers.patches(MIXED)
    features = encoder.encode(values, grid)
    assert towers.distance(towers.flat(features), towers.reference(visual, values, grid)) <= 2e-5
    assert features.main.dtype == np.float32


def test_the_order_of_images_matters(encoder: Any, visual: Any) -> None:
    values, grid = towers.patches(MIXED)
    swapped = grid[[3, 1, 2, 0, 5, 4]]  # the first and fourth have the same size, the last two have not
    theirs = towers.reference(visual, values, grid)
    assert towers.distance(towers.flat(encoder.encode(values, swapped)), theirs) >= 100 * 2e-5


def test_a_video_is_so_many_frames(encoder: Any, visual: Any) -> None:
    values, _ = towers.patches([(8, 6)] * 2)
    grid = np.array([[2, 8, 6]])
    theirs = towers.reference(visual, values, grid)
    assert towers.distance(towers.flat(encoder.encode(values, grid)), theirs) <= 2e-5


def test_an_image_does_not_depend_on_its_neighbours(rounded: VisionEncoder) -> None:
    values, grid = towers.patches(MIXED)
    values[:256] *= 0.5  # the first image is paler than the others
    together = towers.flat(rounded.encode(values, grid))
    alone = towers.flat(rounded.encode(values[:256], grid[:1]))
    for whole, part in zip(together, alone, strict=True):
        assert np.array_equal(whole[: len(part)], part)


def test_equal_runs_give_equal_bits(rounded: VisionEncoder) -> None:
    values, grid = towers.patches(MIXED)
    first, second = (towers.flat(rounded.encode(values, grid)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_threads_do_not_see_each_other(rounded: VisionEncoder) -> None:
    requests = [towers.patches([grid], seed) for seed, grid in enumerate(MIXED)]
    wanted = [towers.flat(rounded.encode(*request)) for request in requests]
    got: list[Any] = [None] * len(requests)

    def encode(index: int) -> None:
        for _ in range(3):
            got[index] = towers.flat(rounded.encode(*requests[index]))

    threads = [threading.Thread(target=encode, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(got, wanted, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "grid",
    [[[1, 16, 15]], [[1, 16, 17]], [[1, 16, 18]], [[1, 16, 14]], [[0, 16, 16]], [[16, 16]], []],
    ids=str,
)
def test_grids_that_do_not_fit_are_named(encoder: Any, grid: list[list[int]]) -> None:
    values, _ = towers.patches([(16, 16)])
    with pytest.raises(BackendError, match="do not fit their grids") as caught:
        encoder.encode(values, np.array(grid))
    assert caught.value.code == "internal_inconsistency"


def test_a_run_that_is_told_to_stop_ends_and_the_next_one_works(encoder: Any, visual: Any) -> None:
    values, grid = towers.patches([(100, 100)])
    how = ort.RunOptions()
    timer = threading.Timer(0.1, setattr, (how, "terminate", True))
    timer.start()
    with pytest.raises(BackendError):
        encoder.encode(values, grid, how)
    timer.join()
    values, grid = towers.patches([(4, 6)])
    ours = towers.flat(encoder.encode(values, grid, ort.RunOptions()))
    assert towers.distance(ours, towers.reference(visual, values, grid)) <= 2e-5


def test_a_damaged_tower_is_named(exports: dict[str, Path], config: VisionConfig, tmp_path: Path) -> None:
    for name in ("vision.onnx", "vision.data"):
        (tmp_path / name).write_bytes((exports["int8"] / name).read_bytes()[:5000])
    with pytest.raises(BackendError, match=r"vision\.onnx cannot be loaded") as caught:
        VisionEncoder(tmp_path, config, RUNTIME)
    assert caught.value.code == "model_invalid"


def test_a_tower_of_another_model_is_refused(exports: dict[str, Path], config: VisionConfig) -> None:
    for other in (replace(config, out_hidden=96), replace(config, deepstack=(0, 1))):
        with pytest.raises(BackendError, match=r"does not belong to its config\.json") as caught:
            VisionEncoder(exports["int8"], other, RUNTIME)
        assert caught.value.code == "model_invalid"


def product(folder: Path, options: Any) -> float:
    """255 times 127, 512 times over, as an int8 matrix product gives it."""
    with DataFile(folder / "ones.data") as data:
        graph = Graph("ones", data)
        x = graph.input("x", FLOAT, [1, 513])
        matrix = graph.constant(np.full((513, 16), 127, np.int8))
        scale = graph.constant(np.ones(16, np.float32))
        graph.op("DynamicQuantizeMatMul", x, matrix, scale, name="y", domain="com.microsoft")
        graph.output("y", FLOAT, [1, 16])
    graph.save(folder / "ones.onnx")
    session = ort.InferenceSession(folder / "ones.onnx", options, providers=["CPUExecutionProvider"])
    x = np.full((1, 513), 255, np.float32)
    x[0, 0] = 0
    return float(session.run(None, {"x": x})[0][0, 0])


def test_exact_sums_are_asked_for_where_the_processor_cuts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def options(*features: str) -> Any:
        found = Processor("x86_64", "", frozenset(features))
        monkeypatch.setattr("backends.onnx.decoder.Processor.read", lambda: found)
        return int8_options(RUNTIME)

    exact = options("avx2")
    assert exact.get_session_config_entry("session.x64quantprecision") == "1"
    assert product(tmp_path, exact) == 255 * 127 * 512
    with pytest.raises(RuntimeError, match="x64quantprecision"):  # it has no such entry
        options("avx2", "avx512_vnni").get_session_config_entry("session.x64quantprecision")


def test_int8_sums_are_whole_on_every_processor(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    assert product(tmp_path / "ours", int8_options(RUNTIME)) == 255 * 127 * 512
    if Processor.read().sums_whole:
        pytest.skip("nothing to see without the option: this processor adds them whole by itself")
    (tmp_path / "theirs").mkdir()
    assert product(tmp_path / "theirs", ort.SessionOptions()) < 0.9 * 255 * 127 * 512


def test_signed_and_unsigned_matrices_give_the_same(
    checkpoint: Path,
    rounded: VisionEncoder,
    config: VisionConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exports: dict[str, Path],
) -> None:
    architecture = "aarch64" if not Processor.read().sums_whole else "x86_64"
    other = replace(Processor.read(), architecture=architecture, features=frozenset())
    assert other.sums_whole is not Processor.read().sums_whole
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(Processor, "read", lambda: other)
        towers.export(checkpoint, tmp_path, "int8")
    assert (tmp_path / "vision.onnx").read_bytes() != (exports["int8"] / "vision.onnx").read_bytes()
    values, grid = towers.patches(MIXED)
    carried = VisionEncoder(tmp_path, config, RUNTIME)
    ours, theirs = (towers.flat(each.encode(values, grid)) for each in (rounded, carried))
    assert towers.distance(ours, theirs) <= 2e-5


GROWTH = """
import sys
from pathlib import Path
import numpy as np
from backends.base import Runtime
from backends.onnx.vision import VisionEncoder
from backends.qwen3vl import Config

def peak():
    # getrusage would give the peak of the process that started this one, were it larger
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

config = Config.read(Path(sys.argv[1])).vision
encoder = VisionEncoder(Path(sys.argv[2]), config, Runtime(device="cpu", threads=1))
values = np.zeros((80 * 80, 1536), np.float32)
encoder.encode(values[:256], np.array([[1, 16, 16]]))
before = peak()
encoder.encode(values, np.array([[1, 80, 80]]))
print((peak() - before) // 1024)
"""


def growth(checkpoint: Path, folder: Path, **environment: str) -> int:
    """Megabytes that an image of 6,400 patches takes; its scores would be 2 x 6400 x 6400 floats: 312."""
    command = [sys.executable, "-c", GROWTH, str(checkpoint), str(folder)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_attention_is_never_held_whole(checkpoint: Path, exports: dict[str, Path]) -> None:
    assert growth(checkpoint, exports["int8"]) < 100
    assert growth(checkpoint, exports["int8"], ORT_DISABLE_FLASH_ATTENTION="1") > 250
