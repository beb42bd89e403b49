"""Trials: from a study's records to one row per replicate."""
