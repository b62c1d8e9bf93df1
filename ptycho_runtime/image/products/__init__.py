"""Results as files: one module a format, what they hold in `values`, and one loop that writes them."""
