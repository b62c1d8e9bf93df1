"""Say what a bundle, an export or a pickle holds, without exporting anything."""
