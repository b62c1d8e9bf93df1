"""Pickles read by a machine of our own: data comes out, nothing is called."""
