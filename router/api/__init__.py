"""OpenAI's JSON <-> requests and chunks; pure: no socket, no thread, no model."""

from router.api.chat import ChatForm, chat_ask
from router.api.completions import TextForm, completion_ask
from router.api.errors import Failure, failure
from router.api.parse import read
from router.api.request import Ask
from router.api.response import AnswerForm, Envelope

__all__ = [
    "AnswerForm",
    "Ask",
    "ChatForm",
    "Envelope",
    "Failure",
    "TextForm",
    "chat_ask",
    "completion_ask",
    "failure",
    "read",
]
