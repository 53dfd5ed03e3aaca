"""hyperllamactl: the command line of hyperllamad, and the one definition of the admin wire (protocol/)."""

__version__ = "0.1.0"
