"""OpenAI's JSON <-> requests and chunks; pure: no socket, no thread, no model."""

from router.api.chat import ChatWriter, chat_ask
from router.api.completions import CompletionWriter, completion_ask
from router.api.errors import ErrorResponse, failure
from router.api.parse import read
from router.api.request import ParsedRequest
from router.api.response import Envelope, ResponseWriter

__all__ = [
    "ChatWriter",
    "CompletionWriter",
    "Envelope",
    "ErrorResponse",
    "ParsedRequest",
    "ResponseWriter",
    "chat_ask",
    "completion_ask",
    "failure",
    "read",
]
