// A picture from the middle of a clip, small. One clip is loaded at a time: a strip of hundreds
// costs the browser one player and a few kB each.

const HEIGHT = 90; // pixels, for tiles of 45 on a fine screen
const PATIENCE_MS = 10_000;
const QUALITY = 0.7;
const kept = new Map(); // address -> promise of a data URI, or of "" where there is none
let last = Promise.resolve();

export function middleFrame(src) {
  if (!kept.has(src)) {
    last = last.then(() => drawn(src)).catch(() => ""); // damaged, gone, or of another origin
    kept.set(src, last);
  }
  return kept.get(src);
}

async function drawn(src) {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, preload: "auto", src });
  try {
    await told(video, "loadeddata");
    video.currentTime = video.duration / 2;
    await told(video, "seeked");
    const canvas = document.createElement("canvas");
    canvas.height = HEIGHT;
    canvas.width = Math.round((HEIGHT * video.videoWidth) / video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/jpeg", QUALITY);
  } finally {
    video.removeAttribute("src");
    video.load(); // lets go of the connection
  }
}

function told(video, event) {
  return new Promise((resolve, reject) => {
    video.addEventListener(event, resolve, { once: true });
    video.addEventListener("error", reject, { once: true });
    setTimeout(reject, PATIENCE_MS);
  });
}
