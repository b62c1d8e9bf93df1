"""Understand a scan, or refuse it: patterns, positions, probe, geometry."""
