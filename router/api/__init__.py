"""JSON of clients <-> requests and chunks; pure: no socket, no thread, no model.

A dialect is one file here, such as ``chat``. This module imports none of them: transcripts and benchmarks
write and read ``messages`` without what the bodies of a server need.
"""
