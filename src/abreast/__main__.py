"""``python -m abreast``: the command ``abreast``."""

from abreast.cli.main import main

if __name__ == "__main__":
    main()
