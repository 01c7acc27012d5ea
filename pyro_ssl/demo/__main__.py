"""``python -m pyro_ssl.demo``."""

from pyro_ssl.demo.cli import main

if __name__ == "__main__":
    main()
