"""A run: one function over many inputs. run.py is its life, read top to bottom, and names the rooms of what it knows."""
