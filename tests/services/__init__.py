"""Tests of the speech services.

A module has its test where the module is, in the folder of its package. Beside these folders stand
the tests of whole services, with the models trained for tests, and of the images.
"""
