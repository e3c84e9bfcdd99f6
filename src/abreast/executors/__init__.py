"""L2, the machinery of each kind of worker: one file a kind. Knows `core` and nothing else of abreast."""
