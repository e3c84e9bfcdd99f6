"""L2, what watches a run while it goes: one file an observer. Knows `core` and nothing else of abreast."""
