"""``python -m speechrnn`` is the speechrnn command."""

import sys


def main() -> None:
    """The command; Ctrl-C while it is still being imported ends it without a traceback, too."""
    try:
        from speechrnn.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
