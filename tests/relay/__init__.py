"""Tests of the relay: pure byte rules first, then real sockets with scripted peers."""
