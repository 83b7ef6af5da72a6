"""The "torch" backend: the whole model in PyTorch through transformers. The reference: always right, slow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, Qwen3VLForConditionalGeneration

from backends.base import BackendError, Logits, Prompt, Runtime
from backends.qwen3vl.config import Config
from backends.qwen3vl.positions import positions
from backends.torch_loading import first_line, load

_Seen: TypeAlias = tuple[list[torch.Tensor] | None, torch.Tensor | None]


class TorchBackend:
    """One checkpoint on one device; its sessions share the weights and nothing else."""

    name = "torch"
    sees_images = True

    def __init__(self, model: Any, config: Config) -> None:
        self.model = model
        self.config = config
        self.context = config.text.context

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> TorchBackend:
        """Load a checkpoint folder's safetensors; code inside a checkpoint is never run."""
        config = Config.read(folder)
        return cls(load(Qwen3VLForConditionalGeneration, folder, runtime), config)

    def open(self, capacity: int) -> TorchSession:
        """Start a session; its cache grows with what it reads."""
        return TorchSession(self)

    @property
    def device(self) -> str:
        """Where it computes: cpu or cuda."""
        return str(self.model.device.type)

    @property
    def dtype(self) -> str:
        """The numbers its weights are held in: bfloat16 or float32."""
        return str(self.model.dtype).removeprefix("torch.")

    def see(self, prompt: Prompt) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Encode the prompt's pictures: features [image_tokens, hidden], and each DeepStack feature."""
        assert prompt.patches is not None
        assert prompt.grid is not None
        visual = self.model.model.visual
        seen = visual(
            torch.from_numpy(prompt.patches).to(self.model.device, visual.dtype),
            grid_thw=torch.from_numpy(prompt.grid).to(self.model.device),
            return_dict=True,
        )
        return seen.pooler_output, list(seen.deepstack_features)

    def picture_features(self, prompt: Prompt) -> list[NDArray[np.float32]]:
        """What ``see`` gives, one after the other, to compare with other backends."""
        with _named_errors(), torch.inference_mode():
            main, deepstack = self.see(prompt)
            return [feature.float().cpu().numpy() for feature in (main, *deepstack)]


class TorchSession:
    """One generation: own cache, own positions."""

    def __init__(self, backend: TorchBackend) -> None:
        self.vision_seconds = 0.0
        self._backend = backend
        self._model = backend.model.model
        self._cache: Any = DynamicCache(config=backend.model.config.text_config)
        self._next_position = 0

    def prefill(self, prompt: Prompt) -> Logits:
        """Encode the pictures, put their features into the embeddings, and read the prompt."""
        ids = torch.from_numpy(prompt.ids)[None].to(self._device)
        # transformers keeps rope_deltas on the model, where a second session would overwrite them
        places, self._next_position = positions(
            len(prompt.ids), prompt.spans, prompt.grid, self._backend.config.vision.merge
        )
        with _named_errors(), torch.inference_mode():
            embeddings = self._model.get_input_embeddings()(ids)
            features, mask = self._see(prompt, embeddings)
            return self._step(embeddings, torch.from_numpy(places)[:, None], mask, features)

    def decode(self, token: int) -> Logits:
        """Read one token at the next position of this session."""
        places = torch.full((3, 1, 1), self._next_position)
        self._next_position += 1
        with _named_errors(), torch.inference_mode():
            embeddings = self._model.get_input_embeddings()(torch.tensor([[token]], device=self._device))
            return self._step(embeddings, places)

    def close(self) -> None:
        """Drop the cache."""
        self._cache = None

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._backend.model.device
        return device

    def _see(self, prompt: Prompt, embeddings: torch.Tensor) -> _Seen:
        """Put picture features into ``embeddings`` [1, tokens, hidden]; return DeepStack ones and where."""
        if prompt.spans is None:
            return None, None
        started = time.perf_counter()
        features, deepstack = self._backend.see(prompt)
        # the template's places, not a search for pad ids: ids are data
        mask = torch.zeros(embeddings.shape[:2], dtype=torch.bool)
        for start, stop in prompt.spans:
            mask[0, start:stop] = True
        mask = mask.to(self._device)
        embeddings[mask] = features.to(embeddings.dtype)
        self._wait()
        self.vision_seconds = time.perf_counter() - started
        return deepstack, mask

    def _step(
        self,
        embeddings: torch.Tensor,
        places: torch.Tensor,
        mask: torch.Tensor | None = None,
        deepstack: list[torch.Tensor] | None = None,
    ) -> Logits:
        hidden = self._model.language_model(
            inputs_embeds=embeddings,
            position_ids=places.to(self._device),
            past_key_values=self._cache,
            visual_pos_masks=mask,
            deepstack_visual_embeds=deepstack,
            use_cache=True,
        ).last_hidden_state
        logits = self._backend.model.lm_head(hidden[0, -1])
        return np.asarray(logits.float().cpu().numpy(), np.float32)

    def _wait(self) -> None:
        # a CUDA call returns before its work is done
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


@contextmanager
def _named_errors() -> Iterator[None]:
    """PyTorch reports what goes wrong as RuntimeError, out of memory included."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise BackendError(
                "backend 'torch' ran out of memory; use a smaller picture or model", code="out_of_memory"
            ) from error
        raise BackendError(f"backend 'torch' failed: {first_line(error)}") from error
