"""Variants in reduced precision, chosen by measurement within a budget and stored beside float32, never instead of it."""

from exporters.errors import BudgetNotKeptError
from exporters.reduced.choose import Choice, choose_variants

__all__ = ["BudgetNotKeptError", "Choice", "choose_variants"]
