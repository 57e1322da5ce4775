"""HTTP/1.1 as bytes: what is taken, what is refused, what is written. Pure: no I/O."""
