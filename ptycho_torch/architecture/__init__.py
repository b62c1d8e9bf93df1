"""Which architecture a bundle implies: evidence in, one `ModelSpec` out, or a refusal."""
