"""How a parity check ends when it does not pass."""


class ParityError(RuntimeError):
    """Two runtimes disagree by more than rounding explains."""

    exit_code = 3


class DeviceRequiredError(RuntimeError):
    """A device that was required is absent, or did not run all of the graph."""

    exit_code = 4
