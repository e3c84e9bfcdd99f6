"""Views of what a run did. Each file knows `core` only."""
