// The form of a workflow. Python decides (what is shown, defaults, problems); this draws, keeps the
// draft in the tab, uploads, and posts the job, so that it works on while NiceGUI's socket is cut.

import { call } from "diffbox/api.js";
import { ClipField, clipOf } from "diffbox/clip_field.js";
import { draft } from "diffbox/draft.js";
import { Field } from "diffbox/field.js";
import { Icon } from "diffbox/icon.js";
import { fetchJob, live, select } from "diffbox/live.js";

const CHECK_MS = 250; // typing settles before Python is asked
const ANSWER_MS = 800; // Generate waits at most so long for Python's last word
const TIERS = [
  ["basic", "Basic"],
  ["advanced", "Advanced"],
  ["expert", "Expert"],
];
const PICTURES = ["image", "images", "mask"];
const AT_ONCE = ["select", "choice", "switch", "image", "images", "mask", "video", "clip"]; // not typed
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const isMac = /mac|iphone|ipad/i.test(navigator.userAgentData?.platform ?? navigator.platform ?? "");

export default {
  components: { "dbx-field": Field, "dbx-icon": Icon, "clip-field": ClipField },
  props: {
    form: Object, // {workflow, title, summary, headline, fields}
    view: Object, // {rev, model, fields, problems, missing}
    others: Array, // [{id, title}] of all workflows
  },
  emits: ["check"],
  template: `
  <form class="form" :data-workflow="form.workflow" :aria-label="form.title" novalidate @submit.prevent="generate">
    <header class="pane-head">
      <h1>{{ form.title }}</h1>
      <span class="grow"></span>
      <div class="segments small" role="radiogroup" aria-label="How many settings">
        <label v-for="[id, word] in tiers" :key="id"><input type="radio" name="tier" :value="id" v-model="state.tier"><span>{{ word }}</span></label>
      </div>
    </header>
    <nav v-if="others.length > 1" class="tabs" aria-label="Workflows">
      <a v-for="other in others" :key="other.id" :href="'/create/' + other.id" :aria-current="other.id === form.workflow ? 'page' : undefined">{{ other.title }}</a>
    </nav>

    <div class="pane-body" ref="body">
      <p class="alert" role="alert" v-if="failure">
        <dbx-icon name="circle-alert" /><span>{{ failure }}</span>
        <button type="button" class="tool" aria-label="Close" @click="failure = ''"><dbx-icon name="x" /></button>
      </p>
      <clip-field v-if="clip" :field="clipField" :value="clip" :message="messages[clipField.name]" @set="set(clipField.name, $event)" />
      <section v-for="[tier, word] in tiers" :key="tier" v-show="tier === 'basic' || inTier(tier).length && (tier !== 'expert' || state.tier === 'expert')"
               :aria-label="word + ' settings'">
        <button v-if="tier !== 'basic'" type="button" class="fold" :aria-expanded="open(tier)" @click="toggle(tier)">
          <dbx-icon name="chevron-right" />{{ word }}<span class="dim">{{ note(tier) }}</span>
        </button>
        <div v-if="open(tier)" class="fields">
          <dbx-field v-for="field in inTier(tier)" :key="field.name" :field="field" :value="state.values[field.name]" :view="view.fields[field.name]"
                     :message="messages[field.name]" :asked="asked" :needed="asked && view.missing.includes(field.name)" :files="state.files" :around="around(field)"
                     :takes-paste="field.name === pasteTarget" @set="set(field.name, $event)" @count="set(field.counted_by, $event)"
                     @file="(ref, file) => (state.files[ref] = file)" />
        </div>
      </section>
    </div>

    <footer class="pane-foot">
      <div class="runs">
        <span v-if="view.model.demo" class="demo"><dbx-icon name="info" />Demo model: random weights</span>
        <strong v-else class="cut">{{ view.model.title }}</strong>
        <span class="dim cut">{{ foot }}</span>
      </div>
      <button type="submit" class="btn primary big" :disabled="sending" :aria-keyshortcuts="mac ? 'Meta+Enter' : 'Control+Enter'">
        <span>{{ sending ? "Sending…" : "Generate" }}</span><kbd aria-hidden="true">{{ mac ? "⌘↵" : "Ctrl ↵" }}</kbd>
      </button>
    </footer>
  </form>`,
  data() {
    return {
      state: draft(this.form.workflow),
      asked: false, // Generate was pressed: empty required fields are told from now on
      sending: false,
      failure: "",
      refused: {}, // problems that the server had with the last attempt, by field
      tiers: TIERS,
      mac: isMac,
    };
  },
  computed: {
    messages() {
      const told = Object.fromEntries(this.view.problems.map((problem) => [this.placeOf(problem), problem.message]));
      return { ...this.refused, ...told };
    },
    clipField() {
      return this.form.fields.find((field) => field.widget === "clip");
    },
    // What is set by "Go on", not by hand: it stands above all fields, and only when it is there.
    clip() {
      return this.clipField && this.state.values[this.clipField.name];
    },
    picture() {
      const pictures = this.form.fields.filter(({ widget, name }) => ["image", "images"].includes(widget) && this.view.fields[name].shown);
      return pictures.map(({ name }) => [this.state.values[name]].flat()[0]).find(Boolean);
    },
    pasteTarget() {
      const takes = (field) => PICTURES.includes(field.widget) && this.view.fields[field.name].shown;
      const empty = this.form.fields.find((field) => takes(field) && !this.state.values[field.name]);
      return (empty ?? this.form.fields.find(takes))?.name;
    },
    foot() {
      const { health } = live;
      if (!this.view.model.ready) return "Its weights are not on this machine yet";
      if (health && !health.workers?.length) return "No worker yet: the job will wait";
      return this.view.model.demo ? "To try things out" : "Ready to run";
    },
  },
  watch: {
    view(view) {
      if (this.filled === view.rev) this.prune(view);
      if (view.rev >= (this.waiting?.rev ?? Infinity)) this.waiting.resolve();
    },
    "state.revision"() {
      this.refused = {};
      this.filled = this.check();
    },
  },
  created() {
    this.rev = 0;
    this.filled = 0;
  },
  mounted() {
    live.page = "Create";
    this.unwatch = Vue.watch(() => JSON.stringify((live.health?.workers ?? []).map((w) => w.models)), () => this.check());
    if (Object.keys(this.state.values).length) this.filled = this.check();
    document.addEventListener("keydown", this.shortcut);
  },
  beforeUnmount() {
    clearTimeout(this.timer);
    this.unwatch();
    document.removeEventListener("keydown", this.shortcut);
  },
  methods: {
    inTier(tier) {
      return this.form.fields.filter((field) => field.tier === tier && field !== this.clipField && this.view.fields[field.name].shown);
    },
    // What a field has to know of the others: the main picture, and for texts how many are used and from which clip on.
    around({ counted_by }) {
      const counts = counted_by && this.view.fields[counted_by];
      const count = counts && (counts.shown ? this.state.values[counted_by] ?? counts.default : null);
      return { picture: this.picture, first: this.clip ? clipOf(this.clip).index + 1 : 0, count };
    },
    // A problem of several parameters together begins with the name of one of them.
    placeOf({ field, message }) {
      const known = (name) => this.form.fields.some((other) => other.name === name);
      const [first] = message.match(/^\w+/) ?? [];
      return known(field) || !known(first) ? field : first;
    },
    open(tier) {
      const depth = (id) => TIERS.findIndex(([other]) => other === id);
      return depth(tier) <= depth(this.state.tier);
    },
    toggle(tier) {
      const at = TIERS.findIndex(([other]) => other === tier);
      this.state.tier = this.open(tier) ? TIERS[at - 1][0] : tier;
    },
    note(tier) {
      const fields = this.inTier(tier);
      const changed = fields.filter((field) => {
        const value = this.state.values[field.name];
        return value !== undefined && !same(value, this.view.fields[field.name].default);
      }).length;
      if (changed) return `${changed} changed`;
      return this.open(tier) ? "" : `${fields.length} settings`;
    },
    set(name, value) {
      if (value === undefined || value === null) delete this.state.values[name];
      else this.state.values[name] = value;
      delete this.refused[name];
      const { widget } = this.form.fields.find((field) => field.name === name);
      clearTimeout(this.timer);
      if (AT_ONCE.includes(widget)) this.check();
      else this.timer = setTimeout(() => this.check(), CHECK_MS);
    },
    check() {
      clearTimeout(this.timer);
      this.timer = 0;
      this.rev += 1;
      this.$emit("check", { rev: this.rev, values: { ...this.state.values } });
      return this.rev;
    },
    // After a fill: what equals the default was not touched, what is no parameter is dropped.
    prune(view) {
      this.filled = 0;
      for (const [name, value] of Object.entries(this.state.values)) {
        const known = view.fields[name];
        if (!known || value === null || (name !== "model" && same(value, known.default))) delete this.state.values[name];
      }
    },
    async settled() {
      const rev = this.timer || this.view.rev !== this.rev ? this.check() : this.rev;
      if (this.view.rev === rev) return;
      await new Promise((resolve) => {
        this.waiting = { rev, resolve };
        setTimeout(resolve, ANSWER_MS);
      });
      this.waiting = null;
    },
    counting() {
      return Object.fromEntries(
        Object.entries(this.state.values).filter(([name]) => this.view.fields[name]?.shown && !this.view.fields[name].blocked),
      );
    },
    async generate() {
      if (this.sending) return;
      this.failure = "";
      this.refused = {};
      this.sending = true;
      this.asked = true;
      try {
        await this.settled();
        if (this.view.missing.length || this.view.problems.length) {
          this.failure = this.unplaced(this.view.problems);
          return this.showFirst();
        }
        const answer = await call("POST", `/api/workflows/${this.form.workflow}`, this.counting());
        this.asked = false;
        await fetchJob(answer.job_id);
        select(answer.job_id);
        document.querySelector(".stage")?.scrollIntoView({ block: "start" });
      } catch (error) {
        this.refuse(error);
      } finally {
        this.sending = false;
      }
    },
    unplaced(problems) {
      const known = new Set(this.form.fields.map((field) => field.name));
      return problems.filter((problem) => !known.has(this.placeOf(problem))).map(({ message }) => message).join(" ");
    },
    refuse({ message, problems }) {
      this.refused = Object.fromEntries(problems.map((problem) => [this.placeOf(problem), problem.message]));
      this.failure = problems.length ? this.unplaced(problems) : message;
      this.showFirst();
    },
    // Opens the tier of the first field that is wrong and goes there.
    async showFirst() {
      const wrong = (field) => this.messages[field.name] || this.view.missing.includes(field.name);
      const first = this.form.fields.find((field) => wrong(field) && this.view.fields[field.name].shown);
      if (!first) return this.failure && this.$refs.body.scrollTo({ top: 0 });
      if (first !== this.clipField && !this.open(first.tier)) this.state.tier = first.tier;
      await this.$nextTick();
      const place = this.$el.querySelector(`[data-field="${first.name}"]`);
      place?.scrollIntoView({ block: "center" });
      const wanted = ["[aria-invalid=true]", "input:not([type=file]), textarea, select, button.drop-empty, button"];
      wanted.map((those) => place?.querySelector(those)).find(Boolean)?.focus({ preventScroll: true });
    },
    shortcut(event) {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.defaultPrevented) return;
      event.preventDefault();
      this.generate();
    },
  },
};
