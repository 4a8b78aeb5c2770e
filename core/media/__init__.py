"""Pictures and videos: what we take in, what we write, and what our files tell about themselves."""

from core.media.embed import embedded, read_embedded
from core.media.images import Fit, fitted, probe_image, read_image, read_mask
from core.media.mp4 import Mp4Info, write_mp4, write_poster
from core.media.probe import MediaProbe, probe
from core.media.video import read_video

__all__ = [
    "Fit",
    "MediaProbe",
    "Mp4Info",
    "embedded",
    "fitted",
    "probe",
    "probe_image",
    "read_embedded",
    "read_image",
    "read_mask",
    "read_video",
    "write_mp4",
    "write_poster",
]
