"""L0, the words that every other layer uses: futures, errors, checks of arguments. Imports nothing of abreast above it."""
