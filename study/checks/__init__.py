"""Checks: do all parts of a study agree, and what works on this machine."""
