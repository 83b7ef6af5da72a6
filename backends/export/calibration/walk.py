"""All prompts through the language model, matrix by matrix: each waits until the one before is rounded."""

from __future__ import annotations

from backends.export.calibration.layer import attend, gated, normalise, rotate, turns
from backends.export.calibration.samples import Floats, States
from backends.qwen3vl.config import TextConfig
from backends.store.weights import Weights

MODEL = "model.language_model."


class Walk:
    """The inputs of the next matrix; memory is that of the states, and of one matrix.

    The order is that of the model: of each layer qkv, out, gate_up and down, then the next layer.
    """

    def __init__(self, states: States, weights: Weights, config: TextConfig) -> None:
        self.ends = states.ends
        self._states = states
        self._weights = weights
        self._config = config
        self._turns = turns(states.places, config)
        self._layer = 0
        self._hidden = states.hidden
        self.inputs = self._normed("input_layernorm")  # [tokens, columns] of the next matrix

    def pass_qkv(self, matrix: Floats) -> None:
        """Go on to the attention's output matrix."""
        config = self._config
        heads = (self.inputs @ matrix.T).reshape(len(self.inputs), -1, config.head_dim)
        key_end = config.heads + config.kv_heads
        query, key = (
            rotate(self._normed(f"self_attn.{name}", heads[:, part]), *self._turns)
            for name, part in (("q_norm", slice(config.heads)), ("k_norm", slice(config.heads, key_end)))
        )
        self.inputs = attend(query, key, heads[:, key_end:], self.ends)

    def pass_out(self, matrix: Floats) -> None:
        """Go on to the MLP's first matrices."""
        self._hidden += self.inputs @ matrix.T
        self.inputs = self._normed("post_attention_layernorm")

    def pass_gate_up(self, matrix: Floats) -> None:
        """Go on to the MLP's last matrix."""
        self.inputs = gated(self.inputs, matrix)

    def pass_down(self, matrix: Floats) -> None:
        """Go on to the next layer; after the last one, to the head."""
        self._hidden += self.inputs @ matrix.T
        if self._layer < len(self._states.deepstack):
            self._hidden[self._states.slots] += self._states.deepstack[self._layer]
        self._layer += 1
        last = self._layer == self._config.layers
        self.inputs = self._normed("norm" if last else "input_layernorm")

    def _normed(self, name: str, x: Floats | None = None) -> Floats:
        prefix = MODEL if name == "norm" else f"{MODEL}layers.{self._layer}."
        scale = self._weights.read(f"{prefix}{name}.weight")
        return normalise(self._hidden if x is None else x, scale, self._config.rms_norm_eps)
