"""Frames in, image out, every frame accounted for: streams go through the core that files go through."""
