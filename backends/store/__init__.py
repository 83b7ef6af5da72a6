"""A model folder on disk: what it holds, whether it is whole, and how it is written and locked."""
