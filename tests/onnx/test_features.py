"""Images are encoded once."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from backends.onnx.features import FeatureCache
from backends.prefix_cache import image_digests
from tests import tiny
from tests.exports import Models, Tower, fp32
from tests.torch.test_backend import LAYOUTS, prompt_of


@pytest.fixture(scope="module", name="models")
def models_fixture() -> Models:
    return fp32()


def test_an_image_is_encoded_once(models: Models) -> None:
    tower = Tower(tiny.model())
    cache = FeatureCache(tower)
    prompt = prompt_of(models.folder, LAYOUTS["two images"])
    assert prompt.patches is not None
    assert prompt.grid is not None
    first = cache.encode(prompt.patches, prompt.grid, image_digests(prompt.patches, prompt.grid))
    again = cache.encode(prompt.patches, prompt.grid, image_digests(prompt.patches, prompt.grid))
    assert tower.seen == 2
    assert np.array_equal(first.main, again.main)
    whole = tower.encode(prompt.patches, prompt.grid)
    assert np.abs(first.main - whole.main).max() < 1e-5
    assert np.abs(first.deepstack[2] - whole.deepstack[2]).max() < 1e-5


def test_the_same_values_in_another_grid_are_another_image() -> None:
    tower, patches = Tower(tiny.model()), np.zeros((8, 1536), np.float32)
    cache = FeatureCache(tower)
    for grid in ([1, 2, 4], [1, 4, 2], [1, 2, 4]):
        shape = np.array([grid])
        cache.encode(patches, shape, image_digests(patches, shape))
    assert tower.seen == 2


def test_kept_features_stay_within_their_bytes() -> None:
    tower = Tower(tiny.model())
    size = tower.encode(np.zeros((16, 1536), np.float32), np.array([[1, 4, 4]])).nbytes
    cache = FeatureCache(tower, kept_bytes=2 * size)
    tower.seen = 0
    for value in (0, 1, 0, 2, 0, 1):  # the third image drives out 1, which was used longest ago
        patches, shape = np.full((16, 1536), value, np.float32), np.array([[1, 4, 4]])
        cache.encode(patches, shape, image_digests(patches, shape))
    assert tower.seen == 4
