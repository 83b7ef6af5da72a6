"""Checkpoint folder -> ONNX folder: numpy and onnx only, tensor by tensor."""
