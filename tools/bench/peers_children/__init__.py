"""Children of tools/bench/peers.py: one program a library, which times itself and prints JSON."""
