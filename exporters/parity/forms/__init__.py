"""The parity report in the forms that people and programs read."""
