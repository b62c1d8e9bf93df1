"""What the tests with other people's programs share. Their packages lie in an environment of their own: `make test-interop`."""

from __future__ import annotations

import pytest
from small_result import small_result

from ptycho_runtime.image.result import Reconstruction


@pytest.fixture(scope="session")
def result() -> Reconstruction:
    """Return a reconstruction of a small scan."""
    return small_result()
