"""The "onnx" backend: one export folder, loaded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.base import BackendError, Prompt, Runtime
from backends.onnx.batch import Batcher
from backends.onnx.cache import Cache
from backends.onnx.decoder import Decoder
from backends.onnx.embeddings import Embeddings
from backends.onnx.features import Encoder, FeatureCache
from backends.onnx.memory import trim
from backends.onnx.prefill import MODEL, Filler
from backends.onnx.session import OnnxSession
from backends.onnx.vision import VisionEncoder
from backends.prefix_cache import KEPT_BYTES, CachePool, picture_digests
from backends.qwen3vl.config import Config, VisionConfig


class OnnxBackend:
    """An export on onnxruntime; its sessions share the weights and the pictures seen, and nothing else."""

    name = "onnx"
    sees_images = True

    def __init__(
        self,
        config: Config,
        decoder: Decoder,
        embeddings: Embeddings,
        encoder: Encoder,
        kept_bytes: int = KEPT_BYTES,
        filler: Filler | None = None,
    ) -> None:
        self.context = config.text.context
        self.merge = config.vision.merge
        self.decoder = decoder
        self.filler = filler  # reads long prompts, where the export has one
        self.embeddings = embeddings
        self.features = FeatureCache(encoder)
        self.batcher = Batcher(decoder)
        self.caches: CachePool[Cache] = CachePool(kept_bytes)

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> OnnxBackend:
        """Load an export folder; BackendError says which file is missing, damaged or not of one piece."""
        config = Config.read(folder)
        for name in ("decoder.onnx", "weights.data", "vision.onnx"):
            if not (folder / name).is_file():
                raise BackendError(
                    f"{folder / name} is missing; export the model again", code="model_invalid"
                )
        graphs = runtime.packed or folder
        decoder = Decoder(graphs, runtime)
        if (decoder.hidden, decoder.deepstack) != (config.text.hidden, len(config.vision.deepstack)):
            raise BackendError(
                f"{graphs / 'decoder.onnx'} does not belong to its config.json; export the model again",
                code="model_invalid",
            )
        embeddings = Embeddings.read(graphs, decoder.notes.get("embeddings", ""))
        encoder = _encoder(folder, config.vision, runtime)
        on_processor = decoder.device == "cpu" and (folder / MODEL).is_file()
        filler = Filler(folder, runtime) if on_processor else None
        trim()
        return cls(config, decoder, embeddings, encoder, runtime.kept_bytes, filler)

    @property
    def device(self) -> str:
        """Where the language model computes: cpu or cuda."""
        return self.decoder.device

    def open(self, capacity: int) -> OnnxSession:
        """Start a session whose cache has room for ``capacity`` tokens."""
        return OnnxSession(self, capacity)

    def picture_features(self, prompt: Prompt) -> list[NDArray[np.float32]]:
        """Main features [image_tokens, hidden], then each DeepStack feature, to compare backends by."""
        assert prompt.patches is not None
        assert prompt.grid is not None
        digests = picture_digests(prompt.patches, prompt.grid)
        seen = self.features.encode(prompt.patches, prompt.grid, digests)
        return [seen.main, *seen.deepstack]


def _encoder(folder: Path, config: VisionConfig, runtime: Runtime) -> Encoder:
    if runtime.vision == "onnx":
        return VisionEncoder(folder, config, runtime)
    if runtime.checkpoint is None:
        raise BackendError("PyTorch's vision reads a checkpoint, and this is an export; name the checkpoint")
    try:
        from backends.onnx.torch_vision import TorchVisionEncoder
    except ImportError:
        raise BackendError(
            "PyTorch's vision needs PyTorch: pip install 'hybrid-router[torch]'", code="backend_unavailable"
        ) from None
    return TorchVisionEncoder(runtime.checkpoint, runtime)
