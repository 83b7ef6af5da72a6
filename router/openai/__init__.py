"""OpenAI's JSON <-> requests and chunks; pure: no socket, no thread, no model."""

from router.openai.answers import AnswerForm, Envelope
from router.openai.ask import Ask
from router.openai.chat import chat_ask
from router.openai.chat_form import ChatForm
from router.openai.completions import completion_ask
from router.openai.document import read
from router.openai.errors import Failure, failure
from router.openai.text_form import TextForm

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
