"""What the commands of :mod:`svae.cli` do; each imports what it needs."""
