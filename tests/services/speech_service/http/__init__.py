"""Tests of what the routes share."""
