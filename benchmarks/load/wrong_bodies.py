"""Bodies that a server of OpenAI's interface must refuse, and what it says of each."""

from __future__ import annotations

from typing import Any

from router.api.parse import MAX_DEPTH, MAX_VALUES

PIXEL = "data:image/png;base64,iVBORw0KGgo="


BROKEN = {
    "nothing": b"",
    "half": b'{"a":',
    "a list": b"[]",
    "a text": b'"a"',
    "a mark before it": b"\xef\xbb\xbf{}",
    "two objects": b"{}{}",
    "a key twice": b'{"a": 1, "b": {"c": 1, "c": 2}}',
    "a key twice, once escaped": b'{"a": 1, "\\u0061": 2}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a number beyond floats": b'{"a": 1e400}',
    "a number of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "one level too deep": b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
    "far too deep": b"[" * 100_000,
    "too many values": b'{"a": [' + b"1," * MAX_VALUES + b"1]}",
    "too many texts": b'{"a": [' + b'"",' * MAX_VALUES + b'""]}',
    "too many texts of a backslash": b'{"a": [' + rb'"\\",' * MAX_VALUES + b'""]}',
    "a text that does not end": b'{"a": "',
    "a control character": b'{"a": "\n"}',
}


def content(*parts: object) -> list[object]:
    """The messages of one user with these parts."""
    return [{"role": "user", "content": list(parts)}]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"model": 1}, "invalid_type", "model"),
    ({"model": None}, "invalid_type", "model"),
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": "Hi"}, "invalid_type", "messages"),
    ({"messages": ["Hi"]}, "invalid_type", "messages[0]"),
    ({"messages": [{"content": "Hi"}]}, "missing_parameter", "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "missing_parameter", "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "invalid_type", "messages[0].content"),
    ({"messages": [{"role": "root", "content": "Hi"}]}, "invalid_value", "messages[0].role"),
    ({"messages": [{"role": "tool", "content": "Hi"}]}, "unsupported_parameter", "messages[0].role"),
    ({"messages": content({"type": "input_audio"})}, "invalid_value", "messages[0].content[0]"),
    ({"messages": content({"text": "Hi"})}, "invalid_value", "messages[0].content[0]"),
    ({"messages": content({"type": "text", "text": 1})}, "invalid_type", "messages[0].content[0].text"),
    ({"messages": content({"type": "image_url"})}, "missing_parameter", "messages[0].content[0].image_url"),
    (
        {"messages": content({"type": "image_url", "image_url": {"url": PIXEL, "detail": "big"}})},
        "invalid_value",
        "messages[0].content[0].image_url.detail",
    ),
    ({"temperature": "1"}, "invalid_type", "temperature"),
    ({"temperature": True}, "invalid_type", "temperature"),
    ({"temperature": 2.1}, "invalid_value", "temperature"),
    ({"temperature": 10**390}, "invalid_type", "temperature"),
    ({"top_p": 0}, "invalid_value", "top_p"),
    ({"top_k": -1}, "invalid_value", "top_k"),
    ({"min_p": 1}, "invalid_value", "min_p"),
    ({"presence_penalty": -3}, "invalid_value", "presence_penalty"),
    ({"repetition_penalty": 0}, "invalid_value", "repetition_penalty"),
    ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    ({"max_tokens": 7.0}, "invalid_type", "max_tokens"),
    ({"max_tokens": True}, "invalid_type", "max_tokens"),
    ({"max_completion_tokens": 0}, "invalid_value", "max_completion_tokens"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "invalid_value", "max_tokens"),
    ({"min_tokens": 9, "max_tokens": 8}, "invalid_value", "min_tokens"),
    ({"n": 2}, "invalid_value", "n"),
    ({"n": 0}, "invalid_value", "n"),
    ({"seed": 2**63}, "invalid_value", "seed"),
    ({"seed": "x"}, "invalid_type", "seed"),
    ({"stop": 1}, "invalid_type", "stop"),
    ({"stop": ["a", None]}, "invalid_type", "stop[1]"),
    ({"logit_bias": {"a": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"01": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"1": "a"}}, "invalid_type", "logit_bias.1"),
    ({"logit_bias": {str(i): 1 for i in range(301)}}, "invalid_value", "logit_bias"),
    ({"logprobs": 1}, "invalid_type", "logprobs"),
    ({"top_logprobs": 1}, "invalid_value", "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
    ({"stream": "yes"}, "invalid_type", "stream"),
    ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
    ({"response_format": {"type": "xml"}}, "invalid_value", "response_format"),
    ({"response_format": {"type": "json_schema"}}, "missing_parameter", "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "missing_parameter",
        "response_format.json_schema.schema",
    ),
    ({"mm_processor_kwargs": {"max_pixels": 0.5}}, "invalid_type", "mm_processor_kwargs.max_pixels"),
    ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
    ({"tool_choice": "required"}, "unsupported_parameter", "tool_choice"),
    ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
    ({"reasoning_effort": "high"}, "unsupported_parameter", "reasoning_effort"),
    ({"chat_template": "{{ x }}"}, "unsupported_parameter", "chat_template"),
    ({"chat_template_kwargs": {"a": 1}}, "unsupported_parameter", "chat_template_kwargs"),
    ({"continue_final_message": True}, "unsupported_parameter", "continue_final_message"),
    ({"skip_special_tokens": False}, "unsupported_parameter", "skip_special_tokens"),
    ({"best_of": True}, "unsupported_parameter", "best_of"),
    ({"guided_regex": "a*"}, "unsupported_parameter", "guided_regex"),
]
