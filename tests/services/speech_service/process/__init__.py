"""Tests of the process around a service."""
