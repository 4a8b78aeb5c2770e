// The clip of an earlier job that a new one goes on from: set by "Go on", shown as what it is.

import { Icon } from "./icon.js";
import { fetchJob, live } from "./live.js";
import { headline } from "./words.js";

const CLIP = /^clip:([^/]+)\/(\d+)$/;

// {job, index} of a value, null when it is none.
export function clipOf(value) {
  const [, job, index] = CLIP.exec(value ?? "") ?? [];
  return job ? { job, index: Number(index) } : null;
}

export const ClipField = {
  components: { "dbx-icon": Icon },
  props: { field: Object, value: String, message: String },
  emits: ["set"],
  template: `
  <div class="continues" :class="{ wrong: message || gone }" :data-field="field.name">
    <dbx-icon name="git-branch" />
    <p>{{ field.title }} <a class="link cut" :href="'/jobs/' + clip.job">{{ name }}</a> after clip {{ clip.index + 1 }}
      <span v-if="message || gone" class="bad" role="alert">{{ message || gone }}</span></p>
    <button type="button" class="tool" :aria-label="'Remove: ' + field.title + ' ' + name" title="Begin anew instead" @click="$emit('set', undefined)"><dbx-icon name="x" /></button>
  </div>`,
  data: () => ({ gone: "" }),
  computed: {
    clip() {
      return clipOf(this.value);
    },
    name() {
      const job = live.jobs[this.clip.job];
      return job ? headline(job) : "an earlier job";
    },
  },
  watch: {
    "clip.job": { immediate: true, handler: "look" },
  },
  methods: {
    async look(id) {
      this.gone = "";
      try {
        if (!live.jobs[id]) await fetchJob(id);
      } catch (error) {
        if (error.code === "not_found") this.gone = "That job is no longer there.";
      }
    },
  },
};
