"""Playlists: what RFC 8216 asks of them, word by word."""

from __future__ import annotations

from core.media import PlaylistEntry, playlist

FIRST = PlaylistEntry(url="/o/0.mp4", seconds=81 / 16, init_bytes=742, size_bytes=100_742)
SECOND = PlaylistEntry(url="/o/1.mp4", seconds=4.75, init_bytes=743, size_bytes=50_743)


def test_each_segment_has_its_start_its_length_and_its_bytes() -> None:
    assert playlist([FIRST, SECOND], ended=False) == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:7\n"
        "#EXT-X-PLAYLIST-TYPE:EVENT\n"
        "#EXT-X-TARGETDURATION:6\n"
        "#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        '#EXT-X-MAP:URI="/o/0.mp4",BYTERANGE="742@0"\n'
        "#EXTINF:5.062500,\n"
        "#EXT-X-BYTERANGE:100000@742\n"
        "/o/0.mp4\n"
        '#EXT-X-MAP:URI="/o/1.mp4",BYTERANGE="743@0"\n'
        "#EXTINF:4.750000,\n"
        "#EXT-X-BYTERANGE:50000@743\n"
        "/o/1.mp4\n"
    )


def test_it_only_grows() -> None:
    """An EVENT playlist may have nothing taken away or changed."""
    before, after = playlist([FIRST], ended=False), playlist([FIRST, SECOND], ended=True)
    assert after.startswith(before)
    assert after.endswith("/o/1.mp4\n#EXT-X-ENDLIST\n")


def test_another_encoder_is_told_before_its_segment() -> None:
    other = PlaylistEntry(url="b.mp4", seconds=1, init_bytes=1, size_bytes=2, encoded_anew=True)
    text = playlist([FIRST, other], ended=False)
    assert '/o/0.mp4\n#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI="b.mp4"' in text


def test_none_yet_is_a_playlist_as_well() -> None:
    assert playlist([], ended=False).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-TARGETDURATION:1",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]
