"""The relay beside other proxies, on one machine and in one run."""
