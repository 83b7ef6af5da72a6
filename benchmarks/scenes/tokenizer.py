"""Trains the tokenizer of `scenes`: byte-level BPE with Qwen2's pre-tokenizer, on our own talk."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from benchmarks.scenes.draw import KINDS, scene
from benchmarks.scenes.talk import blind, chat, turn

VOCABULARY = 1024
CONTROLS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
FIRST_CONTROL = VOCABULARY - len(CONTROLS)
# Qwen2's own split, so that every reader of Qwen tokenizers reads this one.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def control(token: str) -> int:
    """The id of a control token."""
    return FIRST_CONTROL + CONTROLS.index(token)


def train(seed: int = 0) -> Tokenizer:
    """A tokenizer of exactly VOCABULARY entries, the control tokens last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=FIRST_CONTROL,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_corpus(Random(seed)), trainer)
    missing = FIRST_CONTROL - tokenizer.get_vocab_size()
    if missing > 0:  # ids must be gapless: spare control tokens fill what the corpus did not need
        tokenizer.add_special_tokens([AddedToken(f"<|spare_{n}|>", special=True) for n in range(missing)])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROLS])
    return tokenizer


def _corpus(random: Random) -> Iterator[str]:
    for _ in range(12000):
        facts = scene(random.choice(KINDS), (16, 16), random, clean=True).facts
        for family in ("list", "place", "count", "presence"):
            said = turn(family, facts, random)
            if said is not None:
                yield f"user\n{said[0]}"
                yield f"assistant\n{said[1]}"
        yield from ("system\nYou are a helpful assistant.", *chat(random), *blind(random))
