"""Both models lined up, and every part that differs compared alone, in float64."""
