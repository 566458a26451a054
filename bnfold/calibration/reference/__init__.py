"""Layers without a BatchNormalization, and their twins in a float model: pairing, measuring and correcting them."""
