"""The HLS playlist of a video that is still being made (RFC 8216, version 7, type EVENT)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaylistEntry:
    """One segment: its address, how long it lasts, how many bytes it has and begins with."""

    url: str
    seconds: float
    init_bytes: int
    size_bytes: int
    encoded_anew: bool = False
    """Made with another size or encoder than the one before: players start their decoder anew."""


def playlist(entries: Sequence[PlaylistEntry], *, ended: bool) -> str:
    """All segments so far; players ask again until it has ended.

    Each segment is decoded with its own start. That costs a player some hundred bytes a segment,
    and holds also where an earlier job made the first ones.
    """
    longest = max((entry.seconds for entry in entries), default=1)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        f"#EXT-X-TARGETDURATION:{math.ceil(longest)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]
    for entry in entries:
        if entry.encoded_anew:
            lines.append("#EXT-X-DISCONTINUITY")
        size, start = entry.size_bytes - entry.init_bytes, entry.init_bytes
        lines += [
            f'#EXT-X-MAP:URI="{entry.url}",BYTERANGE="{start}@0"',
            f"#EXTINF:{entry.seconds:.6f},",
            f"#EXT-X-BYTERANGE:{size}@{start}",
            entry.url,
        ]
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"
