"""Run a graph: one session contract over every engine and device."""
