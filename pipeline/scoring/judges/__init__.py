"""Judges: scorers that look at pictures with a model of transformers, loaded by its own class.

What they make of the model's numbers stands in `pipeline.scoring.formulae`. A judge never runs code
that a model brings along, and reads weights as safetensors or as plain tensors.
"""
