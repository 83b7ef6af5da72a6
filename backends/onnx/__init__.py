"""The "onnx" backend: an export folder on plain onnxruntime, pictures and text."""
