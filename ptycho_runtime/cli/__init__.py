"""The command line of `ptycho-runtime`, one file a command."""
