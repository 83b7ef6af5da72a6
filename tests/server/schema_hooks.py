"""Loaded by schemathesis: most of its requests shall reach the model, and not end at a name nobody serves."""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        body["model"] = "scenes"
    return body
