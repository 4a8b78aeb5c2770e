// A file parameter: drop, paste or browse; uploaded at once with its progress, kept as a reference.
//
// The bytes go over HTTP to /api/uploads, never over NiceGUI's socket.

import { upload, url } from "./api.js";
import { Icon } from "./icon.js";
import { bytes } from "./words.js";

const NOUNS = { image: "an image", video: "a video" };
const TYPES = { image: "JPEG, PNG or WebP", video: "MP4, WebM or MOV" };
const UPLOAD = "upload:";

export const DropZone = {
  components: { "dbx-icon": Icon },
  props: {
    kind: String, // image or video
    value: { type: String, default: null }, // upload:<sha256> or another reference
    file: { type: Object, default: null }, // what is known about the file
    labelled: String, // id of the label
    described: String,
    help: String,
    wrong: Boolean,
    takesPaste: Boolean,
    given: { type: Object, default: null }, // a file to send at once
    multiple: Boolean, // sends nothing itself: tells the files that it got
    more: Boolean, // there are others already
  },
  emits: ["chosen", "removed", "failed", "files"],
  template: `
  <div class="drop" :class="{ over, wrong: wrong || problem, filled: value && !busy }"
       @dragenter.prevent="over = true" @dragover.prevent="over = true" @dragleave="leave" @drop.prevent="dropped">
    <input ref="input" type="file" class="unseen" tabindex="-1" aria-hidden="true" :accept="kind + '/*'" :multiple="multiple" @change="picked">
    <div v-if="busy" class="drop-busy">
      <img v-if="local && kind === 'image'" :src="local" alt="">
      <div class="drop-words">
        <strong class="cut">{{ name }}</strong>
        <div class="bar" role="progressbar" aria-label="Upload" aria-valuemin="0" aria-valuemax="100" :aria-valuenow="sent">
          <i :style="{ transform: 'scaleX(' + sent / 100 + ')' }"></i>
        </div>
        <span class="dim num">{{ sent < 100 ? "Uploading " + sent + "%" : "Checking…" }}</span>
      </div>
      <button type="button" class="tool" aria-label="Stop the upload" @click="stop"><dbx-icon name="x" /></button>
    </div>
    <div v-else-if="value" class="drop-busy">
      <div class="thumb">
        <img v-if="kind === 'image' && source && !lost" :src="source" alt="" @load="seen" @error="lost = true">
        <video v-else-if="source && !lost" :src="source" muted playsinline preload="metadata" @error="lost = true"></video>
        <dbx-icon v-else name="film" />
      </div>
      <div class="drop-words">
        <strong class="cut">{{ file?.name || (kind === 'image' ? 'Picture' : 'Video') }}</strong>
        <span v-if="lost" class="bad">No longer on the server. Choose it again.</span>
        <span v-else class="dim num">{{ size }}</span>
        <button type="button" class="link" :aria-describedby="labelled" @click="$refs.input.click()">Replace</button>
      </div>
      <button type="button" class="tool" aria-label="Remove the file" :aria-describedby="labelled" @click="remove"><dbx-icon name="x" /></button>
    </div>
    <button v-else type="button" class="drop-empty" :class="{ small: more }" :aria-labelledby="labelled + ' ' + labelled + '-how'" :aria-describedby="described"
            @click="$refs.input.click()">
      <dbx-icon :name="kind === 'image' ? 'image-plus' : 'film'" />
      <span :id="labelled + '-how'">{{ how }}<u v-if="!over && !touch">browse</u></span>
      <small v-if="!more">{{ help }} {{ types }}.</small>
    </button>
    <p v-if="problem" class="problem" role="alert"><dbx-icon name="circle-alert" />{{ problem }}</p>
  </div>`,
  data: () => ({ touch: matchMedia("(pointer: coarse)").matches, over: false, busy: null, sent: 0, name: "", local: "", problem: "", lost: false, natural: "" }),
  computed: {
    how() {
      if (this.over) return "Drop it";
      if (this.more) return this.touch ? "Choose another" : "Drop another or ";
      return this.touch ? `Choose ${this.noun}` : `Drop ${this.noun}${this.takesPaste ? ", paste" : ""} or `;
    },
    noun() {
      return NOUNS[this.kind];
    },
    types() {
      return TYPES[this.kind];
    },
    source() {
      return this.value?.startsWith(UPLOAD) ? url("/api/uploads/" + this.value.slice(UPLOAD.length)) : "";
    },
    size() {
      if (!this.file) return this.natural;
      const { width, height, size_bytes } = this.file;
      return [width && `${width} × ${height}`, bytes(size_bytes)].filter(Boolean).join(" · ");
    },
  },
  watch: {
    value() {
      this.lost = false;
      this.natural = "";
    },
  },
  mounted() {
    document.addEventListener("paste", this.pasted);
    if (this.given) this.take(this.given);
  },
  beforeUnmount() {
    document.removeEventListener("paste", this.pasted);
    this.busy?.abort();
    if (this.local) URL.revokeObjectURL(this.local);
  },
  methods: {
    leave(event) {
      if (!this.$el.contains(event.relatedTarget)) this.over = false;
    },
    dropped(event) {
      this.over = false;
      this.got(event.dataTransfer.files);
    },
    picked(event) {
      this.got(event.target.files);
      event.target.value = ""; // so that the same file can be chosen again
    },
    pasted(event) {
      if (!this.takesPaste) return; // changes while mounted: the next empty field takes the next one
      const files = event.clipboardData?.files ?? [];
      if (!files[0]?.type.startsWith(this.kind + "/")) return;
      event.preventDefault();
      this.got(files);
    },
    got(files) {
      if (this.multiple) this.$emit("files", [...files]);
      else if (files.length) this.take(files[0]);
    },
    seen(event) {
      this.natural = `${event.target.naturalWidth} × ${event.target.naturalHeight}`;
    },
    remove() {
      this.problem = "";
      this.$emit("removed");
    },
    stop() {
      this.busy?.abort();
    },
    fail(problem) {
      this.problem = problem;
      this.$emit("failed", problem);
    },
    async take(file) {
      this.busy?.abort();
      this.problem = "";
      if (!file.type.startsWith(this.kind + "/")) {
        this.fail(`${file.name || "This file"} is not ${this.noun}. Use ${this.types}.`);
        return;
      }
      if (this.local) URL.revokeObjectURL(this.local);
      this.local = URL.createObjectURL(file);
      this.name = file.name || "Pasted picture";
      this.sent = 0;
      const sending = upload(file, (fraction) => (this.sent = Math.floor(fraction * 100)));
      this.busy = Vue.markRaw(sending);
      try {
        const kept = await sending.done;
        const { media_type, width, height, size_bytes } = kept;
        this.$emit("chosen", kept.ref, { name: this.name, media_type, width, height, size_bytes });
      } catch (error) {
        this.fail(error.code === "aborted" ? "" : error.problems?.[0]?.message ?? error.message);
      } finally {
        if (this.busy === sending || this.busy?.done === sending.done) this.busy = null;
      }
    },
  },
};
