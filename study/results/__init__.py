"""What a study leaves on disk: ledger, frozen specification, provenance, registered claims, kept tables."""
