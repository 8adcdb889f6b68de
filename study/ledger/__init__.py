"""What a study leaves behind, and all of study that analysis may import: runs, records, the ledger, its storage and lock."""
