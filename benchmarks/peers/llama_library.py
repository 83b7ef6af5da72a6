"""llama.cpp through the C interface of llama-cpp-python: reads ids and images, tells the best token."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp as mtmd
from numpy.typing import NDArray

from backends.base import BackendError

_ROUND = 256  # tokens; llama.cpp rounds a context up to as many
_ERROR = 4  # ggml.h: GGML_LOG_LEVEL_ERROR
_said: list[str] = []


def _listen(level: int, text: bytes, _: Any) -> None:
    if level == _ERROR:
        _said[:] = [text.decode("utf-8", "replace").strip()]


_LISTENER = llama_cpp.llama_log_callback(_listen)  # kept here: the library calls it as long as it is loaded


class Library:
    """One model and its vision tower, with one sequence of tokens in memory."""

    def __init__(self, text: Path, vision: Path, threads: int, least: int, most: int) -> None:
        """``least``, ``most``: tokens of an image; llama.cpp's own limits are not the checkpoint's."""
        llama_cpp.llama_log_set(_LISTENER, None)
        mtmd.mtmd_log_set(_LISTENER, None)
        mtmd.mtmd_helper_log_set(_LISTENER, None)
        llama_cpp.llama_backend_init()
        self._threads = threads
        settings = llama_cpp.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = _made(llama_cpp.llama_model_load_from_file(os.fsencode(text), settings))
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        seeing = mtmd.mtmd_context_params_default()
        seeing.use_gpu, seeing.n_threads, seeing.print_timings = False, threads, False
        seeing.image_min_tokens, seeing.image_max_tokens = least, most
        self._vision = _made(mtmd.mtmd_init_from_file(os.fsencode(vision), self._model, seeing))
        self._context: Any = None
        self._room = 0

    def make_room(self, tokens: int) -> bool:
        """Have a context of at least ``tokens``; False: a larger one was made, which holds nothing."""
        if tokens <= self._room:
            return True
        if self._context is not None:
            llama_cpp.llama_free(self._context)
        self._room = -(-tokens // _ROUND) * _ROUND
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = self._room
        settings.n_threads = settings.n_threads_batch = self._threads
        settings.no_perf = True
        self._context = _made(llama_cpp.llama_init_from_model(self._model, settings))
        self._most = llama_cpp.llama_n_batch(self._context)
        return False

    def keep(self, position: int) -> None:
        """Forget what was read from ``position`` on."""
        memory = llama_cpp.llama_get_memory(self._context)
        if position == 0:
            llama_cpp.llama_memory_clear(memory, False)
        elif not llama_cpp.llama_memory_seq_rm(memory, 0, position, -1):
            raise BackendError("llama.cpp cannot forget a part of what it read")

    def read(self, ids: NDArray[np.int64], position: int) -> None:
        """Read tokens that stand from ``position`` on; the scores are those after the last."""
        for first in range(0, len(ids), self._most):
            self._decode(ids[first : first + self._most], position + first)

    def best(self) -> int:
        """The likeliest next token."""
        scores = llama_cpp.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(scores, (self._vocab,)).argmax())

    def look(self, pixels: NDArray[np.uint8]) -> Look:
        """Bring an image [height, width, 3] to the size the model reads."""
        return Look(self._vision, pixels)

    def encode(self, look: Look) -> None:
        """Make the image's features, which `place` takes."""
        _check(mtmd.mtmd_encode_chunk(self._vision, look.chunk), "encode an image")

    def place(self, look: Look, position: int) -> None:
        """Read the features of the image encoded last, at ``position``."""
        after = llama_cpp.llama_pos()
        features = mtmd.mtmd_get_output_embd(self._vision)
        nobody = mtmd.mtmd_helper_post_decode_callback()
        found = mtmd.mtmd_helper_decode_image_chunk(
            self._vision, self._context, look.chunk, features, position, 0, self._most,
            ctypes.byref(after), nobody, None,
        )  # fmt: skip
        _check(found, "read an image")

    def _decode(self, ids: NDArray[np.int64], position: int) -> None:
        count = len(ids)
        batch = llama_cpp.llama_batch_init(count, 0, 1)
        try:
            batch.n_tokens = count
            _fill(batch.token, ids)
            _fill(batch.pos, np.arange(position, position + count))
            _fill(batch.n_seq_id, np.ones(count))
            _fill(batch.logits, np.arange(count) == count - 1)
            for place in range(count):
                batch.seq_id[place][0] = 0
            _check(llama_cpp.llama_decode(self._context, batch), "read tokens")
        finally:
            llama_cpp.llama_batch_free(batch)


class Look:
    """An image that was prepared."""

    def __init__(self, vision: Any, pixels: NDArray[np.uint8]) -> None:
        self._chunks = mtmd.mtmd_input_chunks_init()
        marker = mtmd.mtmd_default_marker()
        text = mtmd.mtmd_input_text(marker, len(marker), False, True)
        height, width, _ = pixels.shape
        values = np.ascontiguousarray(pixels).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd.mtmd_bitmap_init(width, height, values)
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        try:
            _check(mtmd.mtmd_tokenize(vision, self._chunks, ctypes.byref(text), bitmaps, 1), "take an image")
        finally:
            mtmd.mtmd_bitmap_free(bitmap)
        self.chunk = self._image()
        self.tokens = int(mtmd.mtmd_input_chunk_get_n_tokens(self.chunk))

    def __del__(self) -> None:
        mtmd.mtmd_input_chunks_free(self._chunks)

    def _image(self) -> Any:
        """The chunk between those of the tokens that begin and end an image."""
        for number in range(mtmd.mtmd_input_chunks_size(self._chunks)):
            chunk = mtmd.mtmd_input_chunks_get(self._chunks, number)
            if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                return chunk
        raise BackendError("llama.cpp found no image in what it was given")


def _fill(pointer: Any, values: NDArray[Any]) -> None:
    np.ctypeslib.as_array(pointer, (len(values),))[:] = values


def _made(pointer: Any) -> Any:
    if not pointer:
        raise BackendError(f"llama.cpp cannot load it: {' '.join(_said) or 'it does not say why'}")
    return pointer


def _check(code: int, what: str) -> None:
    if code:
        raise BackendError(f"llama.cpp cannot {what} ({code}): {' '.join(_said) or 'it does not say why'}")
