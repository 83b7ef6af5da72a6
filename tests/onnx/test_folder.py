"""Loading an export folder, whole or damaged."""

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
ort = pytest.importorskip("onnxruntime")

from backends import BackendError, Prompt, Runtime  # noqa: E402
from backends.onnx.backend import OnnxBackend  # noqa: E402
from tests.exports import Models, fp32, scores, with_its_tower  # noqa: E402
from tests.torch.test_backend import LAYOUTS, prompt_of  # noqa: E402


@pytest.fixture(scope="module", name="models")
def models_fixture() -> Models:
    return fp32()


@pytest.fixture(scope="module", name="loaded")
def loaded_fixture() -> OnnxBackend:
    return with_its_tower()


def test_the_whole_backend_is_loaded_from_its_folder(models: Models, loaded: OnnxBackend) -> None:
    prompt = prompt_of(models.folder, LAYOUTS["two images"])
    assert loaded.decoder.session.get_session_options().intra_op_num_threads == 2
    with closing(loaded.open(1024)) as session, closing(models.backend.open(1024)) as other:
        prefilled = session.prefill(prompt)
        ours = np.stack([prefilled.logits, session.decode(300)])
        assert np.abs(ours - scores(other, prompt, [300, 301])).max() <= 1e-4
        assert prefilled.vision_seconds > 0
        assert session.prefill(Prompt(np.arange(5))).vision_seconds == 0


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
