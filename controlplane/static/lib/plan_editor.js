// Steering: the clips to come of a job that waits or runs, to write, change, drop and reorder.
//
// What is written here belongs to this tab until it is saved. A clip that begins meanwhile takes its
// place away from what is to come; what another tab has saved is told; when the job ends, what was
// written can go into one that goes on. Nothing is lost.

import { call } from "./api.js";
import { current, differences, nextClip, promptOf, span } from "./clips.js";
import { Icon } from "./icon.js";
import { fetchJob, put, UNFINISHED } from "./live.js";
import { newRow, TextRows } from "./text_rows.js";

const CLIPS_MOST = 1000; // of one plan
const CONFLICT = 409;

export const PlanEditor = {
  components: { "text-rows": TextRows, "dbx-icon": Icon },
  props: { job: Object }, // with its plan and clips
  emits: ["dirty", "goon"], // goon: with texts, in a new job
  template: `
  <section class="card plan" aria-labelledby="plan-h">
    <h2 id="plan-h">Clips to come<span class="grow"></span><span v-if="dirty" class="badge unsaved">Not saved</span></h2>
    <ol v-if="begun.length" ref="begun" class="begun" tabindex="0" role="list" aria-label="Clips that have begun">
      <li v-for="row in begun" :key="row.index" :class="row.state">
        <dbx-icon :name="row.state === 'now' ? 'loader-circle' : 'check'" /><span class="num">{{ row.index + 1 }}</span>
        <span class="begun-text"><span class="sr">{{ row.state === "now" ? "being made: " : "made: " }}</span>{{ row.prompt }}</span></li>
    </ol>
    <div v-if="!open" class="note" role="status"><dbx-icon name="info" /><span>The job has ended, and what is written here was not saved.
      <button v-if="job.clips.length" type="button" class="link" @click="$emit('goon', texts)">Go on with it in a new job</button></span></div>
    <p v-if="shifted" class="note" role="status"><dbx-icon name="info" /><span>Clip {{ shifted }} began before this was saved. What you wrote for it is for clip {{ shifted + 1 }} now.</span></p>
    <p v-if="job.plan.finish && open" class="note" role="status"><dbx-icon name="flag" /><span>It ends after {{ now === null ? "its first clip" : "clip " + (now + 1) }}. What stands below is not made.</span></p>

    <text-rows :rows="rows" :first="next" noun="Clip" :least="next > plan.first ? 0 : 1" :most="most" :problems="problems" described="plan-tail" @change="change" />
    <p id="plan-tail" class="tail">{{ tail }}</p>
    <div class="plan-end">
      <label class="check"><input type="checkbox" :checked="num === null" @change="setEndless($event.target.checked)"><dbx-icon name="infinity" />Without end</label>
      <label v-if="num !== null" class="plan-num">Clips in all<input type="number" inputmode="numeric" :min="fewest" :max="plan.first + 1000" step="1" :value="plan.first + num"
             :aria-invalid="endProblem ? 'true' : undefined" :aria-describedby="endProblem ? 'plan-end-problem' : undefined" @input="setEnd($event.target.value)"></label>
    </div>
    <p v-if="endProblem" id="plan-end-problem" class="problem" role="alert"><dbx-icon name="circle-alert" /><span>{{ endProblem }}
      <button v-if="over" type="button" class="chip" @click="num = prompts.length">Make {{ plan.first + prompts.length }}</button></span></p>

    <div v-if="theirs" class="conflict" role="alert">
      <strong>This was changed elsewhere meanwhile</strong>
      <p v-for="words in changes" :key="words">{{ words }}</p>
      <div class="row"><button type="button" class="btn" @click="adopt(job.plan)">Take those changes</button>
        <button type="button" class="btn" :disabled="saving" @click="save">Save mine all the same</button></div>
    </div>
    <p v-if="problem" class="alert" role="alert">{{ problem }}</p>
    <div v-if="open" class="row plan-acts">
      <button type="button" class="btn" :disabled="saving" @click="finish">
        <dbx-icon name="flag" />{{ job.plan.finish ? "Don't finish yet" : "Finish after this clip" }}</button>
      <span class="grow"></span>
      <button v-if="dirty" type="button" class="btn quiet" :disabled="saving" @click="adopt(job.plan)">Undo</button>
      <button v-if="!theirs" type="button" class="btn primary" :disabled="!dirty || saving" @click="save">{{ saving ? "Saving…" : "Save" }}</button>
    </div>
  </section>`,
  // `plan` is the one that was read, `rows` and `num` are what it shall become.
  data() {
    const { plan } = this.job;
    return { plan, rows: coming(this.job, plan).map(newRow), num: plan.num_clips, asked: false, saving: false, problem: "", shifted: 0 };
  },
  computed: {
    open() {
      return UNFINISHED.has(this.job.status);
    },
    next() {
      return nextClip(this.job);
    },
    now() {
      return current(this.job);
    },
    begun() {
      const made = this.job.clips.map(({ index, prompt }) => ({ index, prompt, state: "past" }));
      const known = new Set(made.map((row) => row.index));
      const others = range(this.plan.first, this.next).filter((index) => !known.has(index));
      return [...made, ...others.map((index) => ({ index, prompt: promptOf(this.job.plan, index), state: "now" }))];
    },
    texts() {
      return this.rows.map((row) => row.text);
    },
    // As they are saved: from the job's first clip on.
    prompts() {
      return [...range(this.plan.first, this.next).map((index) => promptOf(this.job.plan, index)), ...this.texts];
    },
    rewritten() {
      return JSON.stringify(coming(this.job, this.plan)) !== JSON.stringify(this.texts);
    },
    dirty() {
      return this.rewritten || this.num !== this.plan.num_clips;
    },
    most() {
      return CLIPS_MOST - (this.next - this.plan.first);
    },
    fewest() {
      return Math.max(this.next, this.plan.first + 1);
    },
    over() {
      return this.num !== null && this.prompts.length > this.num && this.plan.first + this.num >= this.fewest;
    },
    endProblem() {
      if (this.num === null) return "";
      const end = this.plan.first + this.num;
      if (!Number.isInteger(end) || end < this.fewest || this.num > CLIPS_MOST) return `From ${this.fewest} to ${this.plan.first + CLIPS_MOST} clips.`;
      return this.over ? `There are prompts up to clip ${this.plan.first + this.prompts.length}.` : "";
    },
    blank() {
      return this.texts.some((text) => !text.trim());
    },
    problems() {
      const told = this.texts.map((text, i) => [i, text.trim() ? "" : "Say what happens in this clip, or remove it."]);
      return Object.fromEntries(told.filter(([, words]) => words && this.asked));
    },
    tail() {
      const from = this.next + this.rows.length;
      const end = this.num === null ? null : this.plan.first + this.num;
      if (end === null) return `From clip ${from + 1} on, the last prompt goes on.`;
      return from < end ? `${span(from, end - 1)} ${from + 1 < end ? "go" : "goes"} on with the last prompt.` : "";
    },
    // Saved by somebody else while there is something of our own.
    theirs() {
      return this.open && !this.saving && this.dirty && this.job.plan.rev > this.plan.rev;
    },
    changes() {
      return differences(this.plan, this.job.plan);
    },
  },
  watch: {
    dirty(dirty) {
      this.$emit("dirty", dirty);
    },
    "job.plan.rev"(rev) {
      if (rev > this.plan.rev && !this.saving && !this.dirty) this.adopt(this.job.plan);
    },
    // A clip has begun: its text leaves the list, unless it was never saved. When its job waits
    // again or has ended, it comes back.
    next(next, before) {
      if (next < before) {
        const clean = JSON.stringify(this.plan.prompts.slice(Math.max(0, before - this.plan.first))) === JSON.stringify(this.texts);
        const again = clean ? coming(this.job, this.plan) : [...range(next, before).map((index) => promptOf(this.plan, index)), ...this.texts];
        this.rows = again.map(newRow);
      }
      for (let index = before; index < next && this.rows.length; index += 1) {
        const saved = index - this.plan.first < this.plan.prompts.length && promptOf(this.plan, index);
        if (this.rows[0].text === saved) this.rows = this.rows.slice(1);
        else this.shifted = index + 1;
      }
    },
    "begun.length": { flush: "post", handler: "toNewest" },
  },
  mounted() {
    this.toNewest();
  },
  methods: {
    toNewest() {
      this.$refs.begun?.scrollTo({ top: this.$refs.begun.scrollHeight });
    },
    adopt(plan) {
      const rows = coming(this.job, plan).map(newRow);
      Object.assign(this, { plan, rows, num: plan.num_clips, asked: false, problem: "", shifted: 0 });
    },
    // Where each clip has a prompt of its own, a prompt more or less is a clip more or less.
    change(rows) {
      const each = this.num !== null && this.prompts.length === this.num;
      if (each) this.num += rows.length - this.rows.length;
      this.rows = rows;
    },
    setEnd(text) {
      this.num = text.trim() === "" ? NaN : Number(text) - this.plan.first;
    },
    setEndless(yes) {
      this.num = yes ? null : Math.max(this.plan.num_clips ?? 1, this.prompts.length, this.fewest - this.plan.first);
    },
    async save() {
      this.asked = true;
      if (this.blank || this.endProblem) return;
      const mine = { ...(this.rewritten && { prompts: this.prompts }), ...(this.num !== this.plan.num_clips && { num_clips: this.num }) };
      const plan = await this.send(mine);
      if (plan) this.adopt(plan);
    },
    async finish() {
      const { rev } = this.job.plan;
      const mine = this.dirty;
      const plan = await this.send({ finish: !this.job.plan.finish });
      if (plan && !mine) this.adopt(plan);
      else if (plan && this.plan.rev === rev) this.plan = plan; // nothing else has changed
    },
    // The plan after a change; undefined when it was refused.
    async send(change) {
      const { id, plan } = this.job;
      const { next } = this;
      Object.assign(this, { problem: "", saving: true });
      try {
        const record = await call("PATCH", `/api/jobs/${id}/plan`, { rev: plan.rev, ...change });
        put(record);
        return record.plan;
      } catch (error) {
        if (error.code !== "offline") await fetchJob(id).catch(() => {}); // shows what was changed, or that it has ended
        if (this.next > next) this.problem = `${span(next, this.next - 1)} began before this was saved. Look at what is left, then save again.`;
        else if (error.status !== CONFLICT) this.problem = error.message;
      } finally {
        this.saving = false;
      }
    },
  },
};

const range = (from, to) => [...Array(Math.max(0, to - from)).keys()].map((i) => from + i);

// The prompts that a plan has of its own for clips that have not begun.
const coming = (job, plan) => plan.prompts.slice(Math.max(0, nextClip(job) - plan.first));
