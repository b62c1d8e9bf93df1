"""`python -m ptycho_runtime`: the same as `ptycho-runtime`."""

from ptycho_runtime.cli.main import main

if __name__ == "__main__":
    main()
