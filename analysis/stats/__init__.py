"""Statistics: arrays in, results out. Nothing here knows a ledger or a report."""
