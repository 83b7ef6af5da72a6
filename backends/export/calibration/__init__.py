"""Rounding that knows the inputs: error-compensated, layer by layer, on prompts of the model itself."""
