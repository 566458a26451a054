"""Numbers in, numbers out: moments and their merging, and the methods that make statistics of them."""
