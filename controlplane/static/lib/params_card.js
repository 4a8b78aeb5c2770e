// What a job was made with, in the words of its form.

import { url } from "./api.js";
import { clipOf } from "./clip_field.js";
import { Icon } from "./icon.js";

const COPIED_MS = 1500;
const UPLOAD = "upload:";

export const ParamsCard = {
  components: { "dbx-icon": Icon },
  props: { job: Object, titles: Object }, // titles: parameter -> {title, unit, labels, widget}
  template: `
  <section class="card" aria-labelledby="params-h">
    <h2 id="params-h">Parameters<span class="grow"></span>
      <button type="button" class="btn quiet" @click="copy"><dbx-icon :name="copied ? 'check' : 'copy'" />{{ copied ? "Copied" : "Copy JSON" }}</button></h2>
    <dl class="params">
      <div v-for="row in rows" :key="row.name" :class="{ long: row.long }">
        <dt>{{ row.title }}</dt>
        <dd v-if="row.pictures" class="row"><img v-for="picture in row.pictures" :key="picture" :src="picture" alt="" loading="lazy" width="96" height="64"></dd>
        <dd v-else-if="row.lines"><ol class="lines"><li v-for="(line, i) in row.lines" :key="i">{{ line }}</li></ol></dd>
        <dd v-else-if="row.clip" class="num"><a class="link" :href="'/jobs/' + row.clip.job">An earlier job</a> after clip {{ row.clip.index + 1 }}</dd>
        <dd v-else class="num">{{ row.value }}</dd>
      </div>
    </dl>
  </section>`,
  data: () => ({ copied: false }),
  computed: {
    rows() {
      return Object.entries(this.job.params ?? {})
        .filter(([, value]) => value !== null && value !== "" && value.length !== 0)
        .map(([name, value]) => ({ name, ...shownAs(value, this.titles[name] ?? {}), title: this.titles[name]?.title ?? name }));
    },
  },
  methods: {
    async copy() {
      await navigator.clipboard.writeText(JSON.stringify({ workflow: this.job.workflow, params: this.job.params }, null, 2));
      this.copied = true;
      setTimeout(() => (this.copied = false), COPIED_MS);
    },
  },
};

function shownAs(value, { unit, labels, widget }) {
  if (widget === "clip") return { clip: clipOf(value) };
  if (widget === "texts" || widget === "lora") return { lines: value.map(line), long: true };
  const pictures = [value].flat().filter((one) => typeof one === "string" && one.startsWith(UPLOAD));
  if (pictures.length) return { pictures: pictures.map((ref) => url("/api/uploads/" + ref.slice(UPLOAD.length))) };
  const words = labels?.[value] ?? (Array.isArray(value) ? value.join(" × ") : { true: "Yes", false: "No" }[value] ?? value);
  return { value: unit ? `${words} ${unit}` : String(words), long: typeof value === "string" && value.length > 60 };
}

// An object's values by name: "high a.safetensors, low b.safetensors, high strength 0.8".
function line(item) {
  if (typeof item !== "object") return item;
  const given = Object.entries(item).filter(([, value]) => value !== null);
  return given.map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ");
}
