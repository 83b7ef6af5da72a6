"""The bytes that each token stands for, which need not be whole characters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tokenizers import Tokenizer

# A byte-level vocabulary writes each byte as one character: these as themselves, the others from U+0100 on
_AS_THEMSELVES = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in _AS_THEMSELVES]
_BYTES: Mapping[str, int] = {
    **{chr(byte): byte for byte in _AS_THEMSELVES},
    **{chr(0x100 + place): byte for place, byte in enumerate(_OTHERS)},
}


def pieces(tokenizer: Tokenizer, controls: frozenset[int]) -> Callable[[int], bytes]:
    """What gives a token's bytes: none for one of ``controls``, or for an id that has no token."""
    added = {number: token.content for number, token in tokenizer.get_added_tokens_decoder().items()}

    def piece(token: int) -> bytes:
        if token in controls:
            return b""
        if (content := added.get(token)) is not None:
            return str(content).encode("utf-8")
        text = tokenizer.id_to_token(token) or ""
        try:
            return bytes(_BYTES[character] for character in text)
        except KeyError:  # a vocabulary that is not byte-level
            return tokenizer.decode([token]).encode("utf-8")

    return piece
