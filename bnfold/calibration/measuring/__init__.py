"""What is to be measured, in which order and with which graphs: it knows a model, and leaves the running to others."""
