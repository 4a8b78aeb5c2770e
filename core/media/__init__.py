"""Pictures and videos: what we take in, what we write, and what our files tell about themselves."""

from core.media.embed import embedded, read_embedded
from core.media.images import Fit, fitted, probe_image, read_image, read_mask
from core.media.mp4 import POSTER_SIDE, write_mp4, write_poster
from core.media.playlist import PlaylistEntry, playlist
from core.media.png import write_png
from core.media.probe import MediaProbe, probe
from core.media.segments import SegmentInfo, join_segments, write_segment
from core.media.video import read_video

__all__ = [
    "POSTER_SIDE",
    "Fit",
    "MediaProbe",
    "PlaylistEntry",
    "SegmentInfo",
    "embedded",
    "fitted",
    "join_segments",
    "playlist",
    "probe",
    "probe_image",
    "read_embedded",
    "read_image",
    "read_mask",
    "read_video",
    "write_mp4",
    "write_png",
    "write_poster",
    "write_segment",
]
