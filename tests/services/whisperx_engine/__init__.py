"""Tests of the second engine, module by module."""
