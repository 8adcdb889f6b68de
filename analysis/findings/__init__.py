"""What the study says: the findings, built from the ledger by the statistics."""
