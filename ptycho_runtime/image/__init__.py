"""From patches to an image: stitching, trust, products."""
