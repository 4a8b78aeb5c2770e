// A video's clips side by side: those that are made, the one in the making, those to come.

import { url } from "./api.js";
import { current, endOf, promptOf } from "./clips.js";
import { middleFrame } from "./frame.js";
import { Icon } from "./icon.js";

const COMING_MOST = 4; // shown one by one; the rest is a number

const Tile = {
  props: { clip: Object },
  template: `<span class="tile-blank"><img v-if="picture" :src="picture" alt=""></span>`,
  data: () => ({ picture: "" }),
  watch: {
    "clip.artifact.url"() {
      this.look();
    },
  },
  mounted() {
    this.look();
  },
  beforeUnmount() {
    this.seen?.disconnect();
  },
  methods: {
    // Only once it can be seen.
    look() {
      this.seen?.disconnect();
      this.picture = "";
      const src = url(this.clip.artifact.url);
      this.seen = new IntersectionObserver(async (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        this.seen.disconnect();
        this.picture = await middleFrame(src);
      });
      this.seen.observe(this.$el);
    },
  },
};

export const ClipStrip = {
  components: { "dbx-icon": Icon, "clip-tile": Tile },
  props: {
    job: Object, // with its clips
    chosen: [String, Number], // "all", "live", or a clip's index
  },
  emits: ["choose"],
  template: `
  <ol ref="strip" class="strip" aria-label="Clips">
    <li><button type="button" class="clip-tile all" :aria-pressed="chosen === 'all'" @click="$emit('choose', 'all')"><dbx-icon name="film" /><span>All</span></button></li>
    <li v-for="clip in job.clips" :key="clip.index">
      <button type="button" class="clip-tile" :aria-pressed="chosen === clip.index" :aria-label="'Clip ' + (clip.index + 1) + ': ' + clip.prompt" :title="clip.prompt" @click="$emit('choose', clip.index)">
        <clip-tile :clip="clip" /><span class="num">{{ clip.index + 1 }}</span></button>
    </li>
    <li v-if="now !== null">
      <button type="button" class="clip-tile now" :aria-pressed="chosen === 'live'" :aria-label="'Clip ' + (now + 1) + ', being made'" :title="job.plan && prompt(now)" @click="$emit('choose', 'live')">
        <span class="tile-blank"><img v-if="job.preview" :src="job.preview" alt=""></span><span class="num"><i class="dot running"></i>{{ now + 1 }}</span></button>
    </li>
    <li v-for="index in coming" :key="index"><span class="clip-tile coming" :title="prompt(index)"><span class="num"><span class="sr">To come: clip </span>{{ index + 1 }}</span></span></li>
    <li v-if="more"><span class="clip-tile coming more num">{{ more }}</span></li>
  </ol>`,
  computed: {
    now() {
      const index = current(this.job);
      return index === null || this.job.clips.some((clip) => clip.index === index) ? null : index;
    },
    // [from, to) of what nobody has begun; to is Infinity without an end.
    rest() {
      const { job } = this;
      if (!["queued", "running"].includes(job.status) || job.plan.finish) return [0, 0];
      const begun = this.now === null ? job.clips.length && job.clips.at(-1).index + 1 : this.now + 1;
      return [Math.max(begun, job.plan.first), endOf(job.plan) ?? Infinity];
    },
    coming() {
      const [from, to] = this.rest;
      return [...Array(Math.max(0, Math.min(to - from, COMING_MOST))).keys()].map((i) => from + i);
    },
    more() {
      const left = this.rest[1] - this.rest[0] - this.coming.length;
      return left === Infinity ? "…" : left > 0 ? `+ ${left}` : "";
    },
  },
  watch: {
    // A new clip comes into view, but not while somebody looks at earlier ones.
    "job.clips.length"() {
      const { strip } = this.$refs;
      const atEnd = strip.scrollWidth - strip.scrollLeft - strip.clientWidth < strip.clientWidth / 2;
      if (atEnd) this.$nextTick(() => strip.scrollTo({ left: strip.scrollWidth }));
    },
  },
  methods: {
    prompt(index) {
      return promptOf(this.job.plan, index);
    },
  },
};
