"""Statistics: arrays in, numbers out. Knows of no study."""
