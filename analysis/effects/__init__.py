"""Effects: an arm minus a reference, pair by pair, with intervals, controls and strata."""
