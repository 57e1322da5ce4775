"""Tests of the speech services; the engine itself is tested with the model trained for tests."""
