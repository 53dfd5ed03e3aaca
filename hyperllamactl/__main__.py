"""`hyperllamactl` and `python -m hyperllamactl`."""

from __future__ import annotations

import sys

from hyperllamactl import cli


def main() -> None:
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
