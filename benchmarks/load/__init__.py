"""A crowd before ``hybrid serve``."""
