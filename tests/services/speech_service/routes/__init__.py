"""Tests of the routes, one module per family of clients."""
