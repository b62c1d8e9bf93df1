"""Whether an image is to be believed: per pattern, per pixel, and as a whole."""
