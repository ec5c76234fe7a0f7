"""Attacks on a whole frugal serve, through raw sockets."""
FILES = ["values", "access", "faults", "below", "mutations"]
