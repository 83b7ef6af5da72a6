"""The "torch" backend: the whole model in PyTorch through transformers. The reference: always right, slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, Qwen3VLForConditionalGeneration

from backends.base import BackendError, Logits, Prefilled, Prompt, Runtime, Traits
from backends.prefix_cache import KEPT_BYTES, CachedPrefix, PrefixCache
from backends.qwen3vl import Config, position_ids
from backends.torch.loading import Stopping, first_line, load

_Seen: TypeAlias = tuple[list[torch.Tensor] | None, torch.Tensor | None]


class TorchBackend:
    """One checkpoint on one device; its sessions share the weights and nothing else."""

    name = "torch"
    traits = Traits(sees_images=True)

    def __init__(self, model: Any, config: Config, kept_bytes: int = KEPT_BYTES) -> None:
        self.model = model
        self.config = config
        self.context = config.text.context
        text = config.text
        self.token_bytes = 2 * text.layers * text.kv_heads * text.head_dim * model.dtype.itemsize
        self.caches: PrefixCache[DynamicCache] = PrefixCache(kept_bytes)
        self.stopping = Stopping([*model.model.visual.blocks, *model.model.language_model.layers])

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> TorchBackend:
        """Load a checkpoint folder's safetensors; code inside a checkpoint is never run."""
        config = Config.read(folder)
        model = load(Qwen3VLForConditionalGeneration, folder, runtime)
        return cls(model, config, runtime.kept_bytes)

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
        """Encode the prompt's images: features [image_tokens, hidden], and each DeepStack feature."""
        assert prompt.patches is not None
        assert prompt.grid is not None
        visual = self.model.model.visual
        output = visual(
            torch.from_numpy(prompt.patches).to(self.model.device, visual.dtype),
            grid_thw=torch.from_numpy(prompt.grid).to(self.model.device),
            return_dict=True,
        )
        return output.pooler_output, list(output.deepstack_features)

    def image_features(self, prompt: Prompt) -> list[NDArray[np.float32]]:
        """What ``see`` gives, one after the other, to compare with other backends."""
        with _named_errors(), torch.inference_mode():
            main, deepstack = self.see(prompt)
            return [feature.float().cpu().numpy() for feature in (main, *deepstack)]


class TorchSession:
    """One generation: own cache, own positions. `close` from another thread ends a pass after its layer."""

    def __init__(self, backend: TorchBackend) -> None:
        self._backend = backend
        self._model = backend.model.model
        self._cache: Any = None
        self._content = CachedPrefix(np.empty(0, np.int64))
        self._answer: list[int] = []  # tokens behind the content
        self._tokens = 0  # that every layer of the cache holds
        self._next_position = 0
        self._closed = False
        self._computing = False
        self._lock = threading.Lock()

    def prefill(self, prompt: Prompt) -> Prefilled:
        """Encode the images, put their features into the embeddings, and read the prompt.

        What a kept cache holds of it is not read again.
        """
        cached = self._start(CachedPrefix.of(prompt))
        # transformers keeps rope_deltas on the model, where a second session would overwrite them
        positions, self._next_position = position_ids(
            len(prompt.ids), prompt.spans, prompt.grid, self._backend.config.vision.merge
        )
        unread = prompt.after(cached)
        ids = torch.from_numpy(unread.ids)[None].to(self._device)
        with self._stoppable():
            embeddings = self._model.get_input_embeddings()(ids)
            started = time.perf_counter()
            deepstack, mask = self._see(unread, embeddings)
            vision_seconds = 0.0 if mask is None else time.perf_counter() - started
            logits = self._step(embeddings, torch.from_numpy(positions[:, cached:])[:, None], mask, deepstack)
        return Prefilled(logits, vision_seconds, cached, prompt.images - unread.images)

    def decode(self, token: int) -> Logits:
        """Read one token at the next position of this session."""
        positions = torch.full((3, 1, 1), self._next_position)
        self._next_position += 1
        self._answer.append(token)
        with self._stoppable():
            embeddings = self._model.get_input_embeddings()(torch.tensor([[token]], device=self._device))
            return self._step(embeddings, positions)

    def close(self) -> None:
        """Stop what is running, and leave the cache to those that go on from it."""
        with self._lock:
            self._closed = True
            if not self._computing:
                self._leave()

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._backend.model.device
        return device

    def _start(self, content: CachedPrefix) -> int:
        """Get a cache, and return of how many tokens of ``content`` it holds the keys and values."""
        with self._lock:
            self._check_open()
            self._leave()
            kept = self._backend.caches.take(content)
            config = self._backend.model.config.text_config
            self._cache, self._tokens = kept or (DynamicCache(config=config), 0)
            _cut(self._cache, self._tokens)
            self._content, self._answer = content, []
            return self._tokens

    def _leave(self) -> None:
        """Give the cache away, with what it holds; the caller has the lock."""
        if self._cache is not None and self._tokens:
            content = self._content.then(self._answer).first(self._tokens)
            self._backend.caches.give(content, self._cache, self._tokens * self._backend.token_bytes)
        self._cache = None

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        with self._lock:
            self._check_open()
            self._computing = True
        try:
            with _named_errors(), torch.inference_mode(), self._backend.stopping.when(lambda: self._closed):
                yield
        finally:
            with self._lock:
                self._computing = False
                if self._closed:
                    self._leave()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the session was closed", code="cancelled")

    def _see(self, prompt: Prompt, embeddings: torch.Tensor) -> _Seen:
        """Put the features of the prompt's images into its ``embeddings`` [1, tokens, hidden].

        Return their DeepStack features and where they go, [1, tokens].
        """
        if prompt.spans is None:
            return None, None
        features, deepstack = self._backend.see(prompt)
        # the template's places, not a search for pad ids: ids are data
        mask = torch.zeros(embeddings.shape[:2], dtype=torch.bool)
        for start, stop in prompt.spans:
            mask[0, start:stop] = True
        mask = mask.to(self._device)
        embeddings[mask] = features.to(embeddings.dtype)
        self._wait()
        return deepstack, mask

    def _step(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None = None,
        deepstack: list[torch.Tensor] | None = None,
    ) -> Logits:
        hidden = self._model.language_model(
            inputs_embeds=embeddings,
            position_ids=positions.to(self._device),
            past_key_values=self._cache,
            visual_pos_masks=mask,
            deepstack_visual_embeds=deepstack,
            use_cache=True,
        ).last_hidden_state
        self._tokens += embeddings.shape[1]
        logits = self._backend.model.lm_head(hidden[0, -1])
        return np.asarray(logits.float().cpu().numpy(), np.float32)

    def _wait(self) -> None:
        # a CUDA call returns before its work is done
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _cut(cache: DynamicCache, tokens: int) -> None:
    """Keep the first ``tokens``; a pass that was stopped has left some layers with more than others."""
    for layer in cache.layers:
        if layer.keys is not None and layer.values is not None:
            layer.keys, layer.values = layer.keys[..., :tokens, :], layer.values[..., :tokens, :]


@contextmanager
def _named_errors() -> Iterator[None]:
    """PyTorch reports what goes wrong as RuntimeError, out of memory included."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise BackendError(
                "backend 'torch' ran out of memory; use a smaller image or model", code="out_of_memory"
            ) from error
        raise BackendError(f"backend 'torch' failed: {first_line(error)}") from error
