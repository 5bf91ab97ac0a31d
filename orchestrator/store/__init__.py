"""What is kept: the study database, the ledger of attempts, the lease, the snapshot."""
