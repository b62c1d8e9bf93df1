"""Variants in reduced precision, chosen by measurement within a budget and stored beside float32, never instead of it."""
