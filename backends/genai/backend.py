"""The "genai" backend: an export's text.onnx on onnxruntime-genai, loaded once."""

from __future__ import annotations

import threading
from pathlib import Path

from backends.base import BackendError, Runtime
from backends.genai.library import Generator, Model, named_errors
from backends.genai.session import GenaiSession
from backends.machine import LoadedHere, usable_cores
from backends.prefix_cache import KEPT_BYTES, CachePool
from backends.qwen3vl.config import Config, TextConfig


class GenaiBackend:
    """An export on onnxruntime-genai; its sessions share the weights and nothing else."""

    name = "genai"
    sees_images = False

    def __init__(self, model: Model, config: TextConfig, kept_bytes: int = KEPT_BYTES) -> None:
        self.context = config.context
        self.vocab = config.vocab
        self.model = model
        self.token_bytes = 8 * config.layers * config.kv_heads * config.head_dim  # float32, keys and values
        self.caches: CachePool[Generator] = CachePool(kept_bytes)
        self.turn = threading.Lock()  # the library is not made for two threads at once
        self.loaded = LoadedHere()

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> GenaiBackend:
        """Load an export folder; BackendError says which file is missing or damaged."""
        config = Config.read(folder).text
        for name in ("genai_config.json", "text.onnx", "weights.data"):
            if not (folder / name).is_file():
                raise BackendError(
                    f"{folder / name} is missing; export the model again", code="model_invalid"
                )
        options = {
            "intra_op_num_threads": runtime.threads or usable_cores(),
            "inter_op_num_threads": 1,
            # as in backends.onnx.decoder
            "session.intra_op.allow_spinning": "1",
            "session.force_spinning_stop": "1",
            "log_severity_level": 4,  # what goes wrong comes as an exception
        }
        with named_errors(f"{folder / 'text.onnx'} cannot be loaded", code="model_invalid"):
            return cls(Model(runtime.packed or folder, options), config, runtime.kept_bytes)

    def open(self, capacity: int) -> GenaiSession:
        """Start a session of at most ``capacity`` tokens."""
        return GenaiSession(self, capacity)
