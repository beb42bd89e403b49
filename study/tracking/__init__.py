"""The MLflow view of a study: what a store must hold (runs, pages), the store (the only mlflow import), and the replay."""
