"""Open an exported bundle: the graphs, and what a scan must be for them."""
