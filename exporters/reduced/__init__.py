"""Variants in reduced precision, chosen by measurement within a budget and stored beside float32, never instead of it."""

from exporters.reduced.choose import Choice, choose_variants
from exporters.reduced.errors import BudgetNotKeptError

__all__ = ["BudgetNotKeptError", "Choice", "choose_variants"]
