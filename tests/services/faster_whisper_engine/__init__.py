"""Tests of the first engine, module by module."""
