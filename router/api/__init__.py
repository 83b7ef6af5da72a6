"""OpenAI's JSON <-> requests and chunks; pure: no socket, no thread, no model."""

from router.api.ask import Ask
from router.api.chat import chat_ask
from router.api.chat_form import ChatForm
from router.api.completions import completion_ask
from router.api.document import read
from router.api.errors import Failure, failure
from router.api.response import AnswerForm, Envelope
from router.api.text_form import TextForm

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
