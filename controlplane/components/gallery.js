// What was made, as a wall of posters that play under the pointer; a click opens the large view.

import { call, url } from "diffbox/api.js";
import { openForm } from "diffbox/draft.js";
import { Icon } from "diffbox/icon.js";
import { live, newestFirst, put, select } from "diffbox/live.js";
import { duration, headline, outputs } from "diffbox/words.js";
import { Viewer } from "diffbox/viewer.js";

const PAGE = 36;
const CALM = matchMedia("(prefers-reduced-motion: reduce)");

export default {
  components: { "dbx-icon": Icon, "dbx-viewer": Viewer },
  template: `
  <div class="page">
    <header class="page-head"><h1>Gallery</h1></header>
    <p v-if="problem" class="alert" role="alert">{{ problem }}</p>
    <ul v-if="items.length" class="wall">
      <li v-for="(item, i) in items" :key="item.job.id">
        <button type="button" class="tile" :aria-label="'Open ' + item.name" @click="show(i)" @pointerenter="play(item.job.id, $event)"
                @pointerleave="playing = null" @focus="play(item.job.id, $event)" @blur="playing = null">
          <img v-if="item.still" :src="link(item.still.url)" alt="" loading="lazy" decoding="async" :width="item.still.width" :height="item.still.height">
          <video v-if="playing === item.job.id && item.main.kind === 'video'" :src="link(item.main.url)" muted loop autoplay playsinline tabindex="-1"></video>
          <span v-if="item.length" class="tile-time num">{{ item.length }}</span>
          <span class="tile-name cut">{{ item.name }}</span>
        </button>
      </li>
    </ul>
    <div v-else-if="loaded" class="nothing">
      <span class="orb"><dbx-icon name="images" /></span>
      <h2>Nothing here yet</h2>
      <p>Finished videos and pictures are kept here, to look at again and to download.</p>
      <a class="btn primary" href="/">Create something</a>
    </div>
    <div v-if="next" class="more"><button type="button" class="btn" :disabled="busy" @click="more">{{ busy ? "Loading…" : "Show more" }}</button></div>

    <dialog ref="dialog" class="lightbox" :aria-label="shown ? shown.name : 'Viewer'" @close="at = -1" @click="outside" @keydown="keys">
      <template v-if="shown">
        <header class="page-head">
          <h2 class="cut">{{ shown.name }}</h2><span class="grow"></span>
          <a class="btn quiet" :href="'/jobs/' + shown.job.id">Details</a>
          <button type="button" class="tool" aria-label="Close" @click="$refs.dialog.close()"><dbx-icon name="x" /></button>
        </header>
        <dbx-viewer :job="shown.job" @reuse="reuse" />
        <button v-if="at > 0" type="button" class="turn back" aria-label="Newer" @click="at -= 1"><dbx-icon name="chevron-left" /></button>
        <button v-if="at < items.length - 1" type="button" class="turn on" aria-label="Older" @click="at += 1"><dbx-icon name="chevron-right" /></button>
      </template>
    </dialog>
  </div>`,
  data: () => ({ next: null, loaded: false, busy: false, problem: "", playing: null, at: -1, oldest: "" }),
  computed: {
    items() {
      return newestFirst.value
        .filter((job) => job.status === "completed" && (!this.next || job.id >= this.oldest))
        .map((job) => ({ job, name: headline(job), ...outputs(job) }))
        .filter((item) => item.main)
        .map((item) => ({ ...item, length: item.main.frames ? duration(item.main.frames / item.main.fps) : "" }));
    },
    shown() {
      return this.items[this.at] ?? null;
    },
  },
  mounted() {
    live.page = "Gallery";
    this.more();
  },
  methods: {
    link: url,
    // A finger has no hover: a tap opens the large view instead.
    play(id, event) {
      if (CALM.matches || (event.pointerType && event.pointerType !== "mouse")) return;
      this.playing = id;
    },
    show(i) {
      this.at = i;
      this.playing = null;
      this.$refs.dialog.showModal();
    },
    outside(event) {
      if (event.target === this.$refs.dialog) this.$refs.dialog.close();
    },
    keys(event) {
      if (event.target.tagName === "VIDEO") return;
      if (event.key === "ArrowLeft" && this.at > 0) this.at -= 1;
      if (event.key === "ArrowRight" && this.at < this.items.length - 1) this.at += 1;
    },
    async more() {
      this.busy = true;
      this.problem = "";
      const query = new URLSearchParams({ limit: PAGE, status: "completed", ...(this.next && { cursor: this.next }) });
      try {
        const page = await call("GET", `/api/jobs?${query}`);
        for (const job of page.jobs) put(job);
        this.next = page.next;
        this.oldest = page.jobs.at(-1)?.id ?? this.oldest;
      } catch (error) {
        this.problem = error.message;
      } finally {
        this.busy = false;
        this.loaded = true;
      }
    },
    reuse() {
      const { job } = this.shown;
      this.$refs.dialog.close();
      select(job.id);
      openForm(job.workflow, job.params);
    },
  },
};
