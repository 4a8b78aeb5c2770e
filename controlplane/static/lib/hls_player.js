// Plays a video while it is still being made: an HLS playlist that grows clip by clip.
//
//   MediaSource there ──> hls.js, loaded when the first video is played, never with a page
//   else (old iPhones) ─> the browser itself
//
// Not the other way round: canPlayType says "maybe" also where HLS plays badly or not at all.

const HLS = "application/vnd.apple.mpegurl";
const BACKOFF_MS = { first: 1000, most: 15_000 };
const TRIES = 3; // at one place, of what has ended or can't be decoded
const PAST_IT_S = 1;
const AT_END_S = 0.5;

// Props: src, the playlist's address; poster; live, whether clips are still to come; label, the
// video's name for screen readers. Other attributes (autoplay, muted, width…) are the video's.
export const HlsPlayer = {
  inheritAttrs: false,
  props: { src: String, poster: String, live: Boolean, label: String },
  emits: ["gone"], // it can't be played: not there, or not to be decoded
  template: `
  <div class="hls-player">
    <video ref="video" v-bind="$attrs" :poster="poster" :aria-label="label" controls playsinline preload="auto"
           @waiting="waits" @playing="waiting = false" @seeking="waiting = false" @ended="waiting = false"></video>
    <p v-if="gone" class="gone" role="status">The video can't be played: {{ gone }}</p>
    <p v-else-if="waiting && live" class="hls-waiting" role="status">The next clip is being made…</p>
  </div>`,
  data: () => ({ gone: "", waiting: false }),
  watch: {
    src() {
      this.stop();
      this.start();
    },
  },
  mounted() {
    this.start();
  },
  beforeUnmount() {
    this.stop();
  },
  methods: {
    start() {
      Object.assign(this, { gone: "", waiting: false });
      const { video } = this.$refs;
      const over = new AbortController();
      const { signal } = over;
      const was = following(video, signal);
      const retry = retries(was, { live: () => this.live, gone: this.giveUp, signal });
      const play = window.MediaSource || window.ManagedMediaSource ? playByHlsJs : playByBrowser;
      const free = play(video, { src: this.src, was, retry, signal });
      this.stop = () => {
        over.abort();
        free();
      };
    },
    giveUp(why) {
      this.stop();
      this.gone = why;
      this.$emit("gone", why);
    },
    waits({ target }) {
      this.waiting = target.duration - target.currentTime < AT_END_S;
    },
  },
};

// Both give a function that frees what they hold.

function playByHlsJs(video, { src, was, retry, signal }) {
  let player = null;
  const open = async () => {
    try {
      const { default: Hls } = await import("./vendor/hls.light.min.mjs");
      if (signal.aborted) return;
      player = started(Hls, video, { src, was, retry, anew });
    } catch (error) {
      retry(error.message, open);
    }
  };
  const anew = (why) => {
    player.destroy();
    retry(why, open, { forever: false });
  };
  open();
  return () => player?.destroy();
}

function started(Hls, video, { src, was, retry, anew }) {
  const player = new Hls({
    startPosition: was.at, // else a playlist that grows begins at its end, as one of something live
    lowLatencyMode: false,
    backBufferLength: 60,
  });
  player.on(Hls.Events.MEDIA_ATTACHED, () => resume(video, was));
  player.on(Hls.Events.ERROR, (_, { fatal, type, details, reason, error }) => {
    const why = reason ?? error?.message ?? details;
    // hls.js 1.7 deals with a reset itself: several times a second, for ever, when a clip is damaged.
    const reset = details === Hls.ErrorDetails.MEDIA_SOURCE_REQUIRES_RESET;
    if (reset || (fatal && type === Hls.ErrorTypes.MEDIA_ERROR)) anew(why);
    else if (fatal && player.levels?.length) retry(why, () => player.startLoad());
    else if (fatal) retry(why, () => player.loadSource(src)); // the playlist was never read
  });
  player.loadSource(src);
  player.attachMedia(video);
  return player;
}

function playByBrowser(video, { src, was, retry, signal }) {
  const open = () => {
    video.src = src;
    video.currentTime = was.at;
    resume(video, was);
  };
  video.addEventListener("error", () => retry(video.error?.message || "it can't be loaded", open), { signal });
  open();
  return () => {
    video.removeAttribute("src");
    video.load(); // lets go of the connection and of what is buffered
  };
}

// Where the video is and whether it plays. What loads it anew stops it at 0, and tells nobody.
function following(video, signal) {
  const was = { at: 0, playing: false };
  video.addEventListener("play", () => (was.playing = true), { signal });
  video.addEventListener("pause", () => (was.playing = false), { signal });
  video.addEventListener("timeupdate", () => (was.at = video.currentTime || was.at), { signal });
  return was;
}

function resume(video, was) {
  if (was.playing) video.play().catch(() => {}); // the browser may want a click first
}

// One attempt after the other, with longer and longer breaks, counted anew once the video has got
// past the place. While clips are to come a network that fails is tried for ever; what can't be
// decoded does not get better.
function retries(was, { live, gone, signal }) {
  let [tries, at, timer] = [0, 0, 0];
  signal.addEventListener("abort", () => clearTimeout(timer));
  return (why, again, { forever = live() } = {}) => {
    if (signal.aborted || timer) return;
    if (was.at > at + PAST_IT_S) tries = 0;
    at = was.at;
    if (tries++ >= TRIES && !forever) {
      gone(why);
      return;
    }
    const run = () => {
      timer = 0;
      again();
    };
    timer = setTimeout(run, Math.min(BACKOFF_MS.first * 2 ** (tries - 1), BACKOFF_MS.most));
  };
}
