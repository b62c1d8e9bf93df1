"""Contenders side by side in one run: speed, cold start, memory, size and accuracy, as ratios and as a share of the machine's limit."""
