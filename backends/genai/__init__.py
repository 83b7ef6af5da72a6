"""The "genai" backend: onnxruntime-genai over an export's text.onnx; text only."""
