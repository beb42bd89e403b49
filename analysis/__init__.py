"""From a ledger to tables: pure functions on Arrow tables. No torch, no ray."""
