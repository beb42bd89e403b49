"""The MLflow view of a study: what a store must hold (runs, pages), a store (the only mlflow import), and its replay."""
