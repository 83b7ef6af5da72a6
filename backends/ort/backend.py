"""The "onnx" backend: one export folder, loaded once."""

from __future__ import annotations

from pathlib import Path

from backends.base import BackendError, Runtime
from backends.ort.decoder import Decoder
from backends.ort.embeddings import Embeddings
from backends.ort.features import Encoder, FeatureCache
from backends.ort.session import OnnxSession
from backends.ort.vision import VisionEncoder
from backends.qwen3vl.config import Config


class OnnxBackend:
    """An export on onnxruntime; its sessions share the weights and the pictures seen, and nothing else."""

    name = "onnx"
    sees_images = True

    def __init__(self, config: Config, decoder: Decoder, embeddings: Embeddings, encoder: Encoder) -> None:
        self.context = config.text.context
        self.merge = config.vision.merge
        self.decoder = decoder
        self.embeddings = embeddings
        self.features = FeatureCache(encoder)

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> OnnxBackend:
        """Load an export folder; BackendError says which file is missing, damaged or not of one piece."""
        config = Config.read(folder)
        for name in ("decoder.onnx", "weights.data", "vision.onnx"):
            if not (folder / name).is_file():
                raise BackendError(
                    f"{folder / name} is missing; export the model again", code="model_invalid"
                )
        decoder = Decoder(folder, runtime)
        embeddings = Embeddings.read(folder, decoder.notes.get("embeddings", ""))
        return cls(config, decoder, embeddings, VisionEncoder(folder, config.vision, runtime))

    def open(self, capacity: int) -> OnnxSession:
        """Start a session whose cache has room for ``capacity`` tokens."""
        return OnnxSession(self, capacity)
