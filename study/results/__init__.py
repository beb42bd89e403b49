"""What a study leaves on disk: ledger, provenance, registered claims, kept tables."""
