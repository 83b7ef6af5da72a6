"""The "onnx" backend: an export folder on plain onnxruntime, images and text."""
