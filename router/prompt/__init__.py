"""Messages -> the prompt that every backend reads."""

from router.prompt.builder import Plan, PromptBuilder

__all__ = ["Plan", "PromptBuilder"]
