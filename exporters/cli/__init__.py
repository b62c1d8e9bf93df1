"""The command line of `ptycho-export`, one file a command."""
