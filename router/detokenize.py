"""Tokens to text, as whole characters, up to the first stop string; and to the bytes that each stands for.

`TextStream` is fed the tokens of one answer. `pieces` gives a token's bytes, which need not be whole
characters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"  # what decoding shows for bytes that are no character, or not yet one

Decode = Callable[[Sequence[int]], str]


class TextStream:
    """Turns the tokens of one answer into text that may be shown at once.

    ``decode`` turns token ids into text without special tokens, as ``tokenizers.Tokenizer.decode`` does. More
    tokens may only lengthen its text, except that a last U+FFFD may become the character its bytes began. All
    pieces joined are ``decode`` of all tokens, cut before the stop string that is complete first; of several
    complete at the same character, before the longest. Token boundaries play no part in that.
    """

    def __init__(self, decode: Decode, stop: tuple[str, ...] = ()) -> None:
        self.stopped = False
        self._decode = decode
        self._stop = stop
        self._pending = ""  # text that may be the beginning of a stop string
        self._window: list[int] = []  # the last tokens, enough to read the next in context
        self._grown = 0  # where in the window the token stands that last added text
        self._settled = 0  # characters of the window's text that cannot change any more

    def push(self, token: int) -> str:
        """The text that can be shown after one more token; often empty, always whole characters."""
        if self.stopped:
            return ""
        return self._pass(self._settle(token))

    def flush(self) -> str:
        """The text still held back, at the end of an answer; an unfinished character reads U+FFFD."""
        if self.stopped:
            return ""
        text = self._decode(self._window)[self._settled :]
        piece = self._pass(text) + ("" if self.stopped else self._pending)
        self._pending, self._window, self._grown, self._settled = "", [], 0, 0
        return piece

    def _settle(self, token: int) -> str:
        """The characters that are certain now and were not before ``token``."""
        self._window.append(token)
        text = self._decode(self._window)
        certain = _certain(text)
        if certain <= self._settled:
            # A special token adds nothing anywhere: forget it, or a long run of them is read again and again
            if not self._decode((token, token)):
                self._window.pop()
            return ""
        fresh = text[self._settled : certain]
        # A token that settles text holds all of an unfinished character after it. The token that settled text
        # before this one stays as context, since some decoders read the first token of a text differently
        del self._window[: self._grown]
        self._grown = len(self._window) - 1
        self._settled = _certain(self._decode(self._window))
        return fresh

    def _pass(self, text: str) -> str:
        """Add ``text`` to what is held, and give out all that no stop string can begin in."""
        text = self._pending + text
        complete = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if complete:
            self.stopped = True
            self._pending = ""
            return text[: min(complete)[1]]
        cut = len(text) - self._begun(text)
        self._pending = text[cut:]
        return text[:cut]

    def _begun(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins a stop string."""
        longest = min(len(text), max(map(len, self._stop), default=1) - 1)
        lengths = range(longest, 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self._stop)), 0)


def _certain(text: str) -> int:
    # Bytes that may still become a character read as exactly one U+FFFD, and only at the end
    return len(text) - text.endswith(_REPLACEMENT)


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
