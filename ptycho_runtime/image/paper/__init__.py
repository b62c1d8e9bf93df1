"""A figure for a paper: what it shows as values, drawn by matplotlib, or more plainly by pillow where that is not installed."""
