"""PtychoPINN's workflow names."""
