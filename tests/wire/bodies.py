"""Bodies in pieces, for the tests of their framing."""

from __future__ import annotations

from hypothesis import strategies as st

from autostart_proxy.wire.framing import Body

chunk_lists = st.lists(
    st.binary(min_size=1, max_size=40) | st.integers(250, 260).map(lambda size: b"x" * size),
    max_size=6,
)
cuts = st.lists(st.integers(0, 10_000), max_size=12)


def fed(body: Body, *pieces: bytes) -> bytes:
    """All that is passed on; the surplus of the last piece stays in the body."""
    return b"".join(body.feed(piece) for piece in pieces)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def encode(chunks: list[bytes], trailers: bytes = b"", extension: bytes = b"") -> bytes:
    parts = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return b"".join(parts) + b"0%b\r\n" % extension + trailers + b"\r\n"
