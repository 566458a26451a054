"""Operators in float64: floating-point types stand for the real numbers."""
