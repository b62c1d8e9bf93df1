"""Every network and the physics once more, in float64 numpy and scipy: nothing here knows of `torch.nn` or of the project's modules."""
