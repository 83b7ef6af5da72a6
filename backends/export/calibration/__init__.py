"""Rounding that knows the inputs: error-compensated, layer by layer, on prompts of the model itself.

::

    samples      what is run through the model: prompts, in two halves that are alike, and some held out
    walk         their hidden states on the way from matrix to matrix, in numpy
    compensate   H of a matrix's inputs, and rounding that makes up for what it loses
    matrices     the exporter's matrix store that rounds so
"""
