"""Messages -> the prompt that every backend reads.

::

    builder        PromptBuilder: messages -> Plan (ids, image places) -> Prompt (with patches)
    conversation   what every conversation must be, and the form in which templates read it
    template       the model's chat template, control tokens marked; sandbox: where it runs, on a budget
    checkpoint     the text files of a model folder: tokenizer, template, sampling defaults
"""

from router.prompt.builder import Plan, PromptBuilder

__all__ = ["Plan", "PromptBuilder"]
