"""What a study occupies and costs: step times, memory, groups per GPU."""
