"""What can end the search for a variant."""

from __future__ import annotations

from exporters.parity.errors import ParityError


class BudgetNotKeptError(ParityError):
    """No way of running the graph on this host keeps the budget on held-back patterns."""
