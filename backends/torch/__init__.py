"""The "torch" backend: the whole model in PyTorch through transformers; the reference."""
