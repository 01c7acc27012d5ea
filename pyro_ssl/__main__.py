"""``python -m pyro_ssl``: the command line, as ``pyro-ssl``."""

import sys

from pyro_ssl.cli import main

if __name__ == "__main__":
    sys.exit(main())
