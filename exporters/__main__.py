"""`python -m exporters`: the same as `ptycho-export`."""

from exporters.cli.start import main

if __name__ == "__main__":
    main()
