"""Tests of transcriptions under way."""
