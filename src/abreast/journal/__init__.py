"""L2, the file of finished tasks from which a later run resumes: docs/design/journal.md. Knows `core` and nothing else of abreast."""
