"""``python -m wgtorch``: the same as ``wgtorch``."""

import sys

from wgtorch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
