// Plays a video while it is still being made: an HLS playlist that grows clip by clip.
//
//   MediaSource there ──> hls.js, loaded when the first video is played, never with a page
//   else (old iPhones) ─> the browser itself
//
// Not the other way round: canPlayType says "maybe" also where HLS plays badly or not at all.

const HLS = "application/vnd.apple.mpegurl";
const BACKOFF_MS = { first: 1000, most: 15_000 };
const TRIES = 4; // in a row, of what ended or can't be decoded
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
      const given = { src: this.src, live: () => this.live, gone: this.giveUp };
      const play = window.MediaSource || window.ManagedMediaSource ? playByHlsJs : playByBrowser;
      this.stop = play(this.$refs.video, given);
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

// Both give a function that ends it and frees everything. given: {src, live(), gone(why)}.

function playByHlsJs(video, given) {
  const retry = retries(given);
  let player = null;
  const open = async () => {
    try {
      const { default: Hls } = await import("./vendor/hls.light.min.mjs");
      if (!retry.over()) player = started(Hls, video, given, retry);
    } catch (error) {
      retry.after(error.message, open);
    }
  };
  open();
  return () => {
    retry.stop();
    player?.destroy();
  };
}

function started(Hls, video, { src }, retry) {
  const player = new Hls({
    startPosition: 0, // a playlist that grows is taken for live, and that begins at its end
    lowLatencyMode: false,
    backBufferLength: 60,
  });
  player.on(Hls.Events.FRAG_BUFFERED, retry.fine);
  player.on(Hls.Events.ERROR, (_, { fatal, type, details, reason, error }) => {
    if (!fatal) return; // hls.js itself goes on
    const why = reason ?? error?.message ?? details;
    const decodeAnew = () => keepPlaying(video, () => player.recoverMediaError());
    if (type === Hls.ErrorTypes.MEDIA_ERROR) retry.after(why, decodeAnew, { forever: false });
    else if (player.levels?.length) retry.after(why, () => player.startLoad(video.currentTime));
    else retry.after(why, () => player.loadSource(src)); // the playlist was never read
  });
  player.loadSource(src);
  player.attachMedia(video);
  return player;
}

function playByBrowser(video, given) {
  const retry = retries(given);
  const open = () =>
    keepPlaying(video, () => {
      const at = video.currentTime;
      video.src = given.src;
      video.currentTime = at;
    });
  const failed = () => retry.after(video.error?.message || "it can't be loaded", open);
  video.addEventListener("error", failed);
  video.addEventListener("playing", retry.fine);
  open();
  return () => {
    retry.stop();
    video.removeEventListener("error", failed);
    video.removeEventListener("playing", retry.fine);
    video.removeAttribute("src");
    video.load(); // lets go of the connection and of what is buffered
  };
}

// What loads a video anew also pauses it.
function keepPlaying(video, load) {
  const playing = !video.paused;
  load();
  if (playing) video.play().catch(() => {}); // the browser may want a click first
}

// One attempt after the other, with longer and longer breaks. While clips are to come a network
// that fails is tried for ever; what can't be decoded does not get better.
function retries({ live, gone }) {
  let [tries, timer, over] = [0, 0, false];
  return {
    over: () => over,
    fine: () => (tries = 0),
    after(why, again, { forever = live() } = {}) {
      if (over || timer) return;
      tries += 1;
      if (!forever && tries > TRIES) {
        over = true;
        gone(why);
        return;
      }
      const pause = Math.min(BACKOFF_MS.first * 2 ** (tries - 1), BACKOFF_MS.most);
      timer = setTimeout(() => {
        timer = 0;
        again();
      }, pause);
    },
    stop() {
      over = true;
      clearTimeout(timer);
    },
  };
}
