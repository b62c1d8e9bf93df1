"""The file layouts of scans, one module each."""
