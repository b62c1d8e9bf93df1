"""More than one machine, or more than one scan: scans by the list or as they come, and one scan in parts."""
