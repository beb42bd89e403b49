"""From agenda to ledger: groups of replicates handed to an executor, and what it reports written down."""
