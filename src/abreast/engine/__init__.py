"""A run: one function over many inputs. run.py is its life, read top to bottom."""
