"""Training: read trainer.py from top to bottom; fit.py is how a run begins."""
