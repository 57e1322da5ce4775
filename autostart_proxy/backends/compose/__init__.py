"""Compose projects as services."""
