"""What a study leaves behind: runs, records, the ledger, its storage and its lock."""
