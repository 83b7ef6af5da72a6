"""Clients of OpenAI's API, each in an environment of its own, against a running ``hybrid serve``."""
