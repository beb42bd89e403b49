"""Plans: cells and seeds of a study, what runs next, and the only room that imports Optuna."""
