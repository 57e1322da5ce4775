"""How operators talk to the running proxy."""
