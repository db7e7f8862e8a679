"""``python -m jaxrl_cb`` is the command line ``jaxrl-cb``."""

from jaxrl_cb.cli import main

if __name__ == "__main__":
    main()
