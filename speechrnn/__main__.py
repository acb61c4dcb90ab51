"""``python -m speechrnn`` is the speechrnn command."""

from speechrnn.cli import main

if __name__ == "__main__":
    main()
