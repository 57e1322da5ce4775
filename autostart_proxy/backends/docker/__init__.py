"""The Docker Engine, as far as backends need it."""
