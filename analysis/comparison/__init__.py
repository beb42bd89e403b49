"""Two studies compared: specifications, outcomes, effects and verdicts."""
