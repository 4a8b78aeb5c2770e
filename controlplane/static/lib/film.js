// A video of clips: the whole of it, also while it is made, one clip alone, or the one in the making.

import { call, url } from "./api.js";
import { ClipStrip } from "./clip_strip.js";
import { seconds } from "./clips.js";
import { goOnAfter } from "./draft.js";
import { HlsPlayer } from "./hls_player.js";
import { Icon } from "./icon.js";
import { live, UNFINISHED } from "./live.js";
import { duration, headline, outputs } from "./words.js";

export const Film = {
  components: { "clip-strip": ClipStrip, "hls-player": HlsPlayer, "dbx-icon": Icon },
  props: { job: Object, actions: Boolean, moves: Boolean }, // moves: videos begin by themselves
  emits: ["made"], // a new job's id
  template: `
  <div class="film">
    <div class="canvas" :style="shape">
      <video v-if="clip" :key="clip.artifact.url" :src="link(clip.artifact.url)" controls :autoplay="moves" muted loop playsinline :aria-label="'Clip ' + (clip.index + 1) + ' of ' + name"></video>
      <template v-else-if="chosen === 'live'">
        <img v-if="job.preview" class="preview" :src="job.preview" alt="Preview of the clip that is being made">
        <div v-else class="blank"><dbx-icon name="clapperboard" /></div>
      </template>
      <video v-else-if="whole" :key="whole.url" :src="link(whole.url)" :poster="poster" controls :autoplay="moves" muted loop playsinline :aria-label="'Video: ' + name"></video>
      <hls-player v-else :key="job.id" :src="playlist" :live="open" :label="'Video so far: ' + name" :autoplay="moves" muted />
    </div>
    <clip-strip :job="job" :chosen="clip ? clip.index : chosen" @choose="choose" />
    <div v-if="actions" class="clip-acts" role="group" :aria-label="clip ? 'Clip ' + (clip.index + 1) : 'All clips'">
      <p v-if="clip" class="clip-words"><strong class="num">Clip {{ clip.index + 1 }}</strong><span v-if="clip.seed !== null" class="dim num">seed {{ clip.seed }}</span>
        <span class="clip-prompt">{{ clip.prompt }}</span></p>
      <p v-else class="clip-words"><strong class="num">{{ job.clips.length }} {{ job.clips.length > 1 ? "clips" : "clip" }}</strong><span class="dim num">{{ length }}</span></p>
      <span class="row">
        <template v-if="clip">
          <button v-if="branches" type="button" class="btn" :disabled="sending" title="A new job: it keeps the clips before this one, and makes it and those after it with another seed" @click="again"><dbx-icon name="refresh-cw" />Make this clip again</button>
          <button v-if="branches" type="button" class="btn" title="A new job: it keeps the clips up to this one" @click="goOn(clip.index)"><dbx-icon name="git-branch" />Go on from here</button>
          <a class="btn" :href="link(clip.artifact.url)" :download="clip.artifact.filename"><dbx-icon name="download" />Clip</a>
        </template>
        <template v-else>
          <button v-if="branches && !open" type="button" class="btn" @click="goOn(job.clips.at(-1).index)"><dbx-icon name="fast-forward" />Go on</button>
          <a v-if="job.status !== 'completed'" class="btn" :href="link('/api/jobs/' + job.id + '/clips.mp4')" download><dbx-icon name="download" />Download so far</a>
        </template>
      </span>
    </div>
    <p v-if="problem" class="alert" role="alert">{{ problem }}</p>
  </div>`,
  // `whole` is the finished video. Who watches the growing one goes on watching that when it is done.
  data() {
    return { chosen: "all", sending: false, problem: "", whole: this.finished() };
  },
  watch: {
    "job.id"() {
      this.choose("all");
    },
    "job.status"() {
      if (this.chosen === "live") this.choose("all");
    },
  },
  computed: {
    name() {
      return headline(this.job);
    },
    open() {
      return UNFINISHED.has(this.job.status);
    },
    clip() {
      return this.job.clips.find((clip) => clip.index === this.chosen) ?? null;
    },
    playlist() {
      return url(`/api/jobs/${this.job.id}/playlist.m3u8`);
    },
    poster() {
      const { still } = outputs(this.job);
      return still ? url(still.url) : undefined;
    },
    shape() {
      const { width, height } = this.job.clips.at(-1).artifact;
      return { aspectRatio: `${width} / ${height}`, "--ratio": width / height };
    },
    length() {
      return duration(seconds(this.job.clips));
    },
    branches() {
      return !!live.workflows[this.job.workflow]?.clip;
    },
  },
  methods: {
    link: url,
    finished() {
      const { main } = outputs(this.job);
      return this.job.status === "completed" && main?.kind === "video" ? main : null;
    },
    choose(what) {
      this.problem = "";
      this.chosen = what;
      this.whole = this.finished();
    },
    goOn(index) {
      goOnAfter(this.job, index);
    },
    async again() {
      this.problem = "";
      this.sending = true;
      try {
        const answer = await call("POST", `/api/jobs/${this.job.id}/continue`, { after: this.clip.index - 1, params: {} });
        this.$emit("made", answer.job_id);
      } catch (error) {
        this.problem = error.message;
      } finally {
        this.sending = false;
      }
    },
  },
};
