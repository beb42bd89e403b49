"""The only room that imports Ray: connects to a cluster and runs groups of replicates on it."""
