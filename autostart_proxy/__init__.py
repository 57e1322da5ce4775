"""A reverse proxy that wakes Docker Compose projects on demand and puts them to sleep when idle."""

__version__ = "0.1.0"
