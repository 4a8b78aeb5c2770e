// Steering: the clips to come of a job that waits or runs, to write, change, drop and reorder.
//
// What is written here belongs to this tab until it is saved. A clip that begins meanwhile takes its
// place away from what is to come; what another tab has saved is told, and nothing is lost.

import { call } from "./api.js";
import { current, differences, endOf, nextClip, promptOf, span } from "./clips.js";
import { Icon } from "./icon.js";
import { fetchJob, live, put } from "./live.js";
import { newRow, TextRows } from "./text_rows.js";

const CLIPS_MOST = 1000;

export const PlanEditor = {
  components: { "text-rows": TextRows, "dbx-icon": Icon },
  props: { job: Object }, // one that has not ended, with its plan and clips
  template: `
  <section class="card plan" aria-labelledby="plan-h">
    <h2 id="plan-h">Clips to come<span class="grow"></span><span v-if="dirty" class="badge unsaved">Not saved</span></h2>
    <details v-if="begun.length" class="begun">
      <summary>{{ begunWords }}</summary>
      <ol><li v-for="row in begun" :key="row.index" :class="row.state">
        <dbx-icon :name="row.state === 'now' ? 'loader-circle' : 'check'" /><span class="num">{{ row.index + 1 }}</span>
        <span class="begun-text">{{ row.prompt }}<span class="sr">{{ row.state === "now" ? " (being made)" : " (made)" }}</span></span></li></ol>
    </details>
    <p v-if="shifted" class="note" role="status"><dbx-icon name="info" /><span>Clip {{ shifted }} began before this was saved. What you wrote for it is for clip {{ shifted + 1 }} now.</span></p>
    <p v-if="job.plan.finish" class="note" role="status"><dbx-icon name="flag" /><span>It ends after {{ now === null ? "its first clip" : "clip " + (now + 1) }}. What is written below is not made.</span></p>

    <text-rows :rows="rows" :first="next" noun="Clip" :most="most" :problems="problems" described="plan-tail" @change="change" />
    <p id="plan-tail" class="tail">{{ tail }}</p>

    <div class="plan-end">
      <label class="check"><input type="checkbox" :checked="num === null" @change="setEndless($event.target.checked)"><dbx-icon name="infinity" />Without end</label>
      <label v-if="num !== null" class="plan-num">Clips in all <input type="number" inputmode="numeric" :min="leastEnd" :max="plan.first + 1000" step="1" :value="plan.first + num"
             :aria-invalid="endProblem ? 'true' : undefined" :aria-describedby="endProblem ? 'plan-end-problem' : undefined" @input="setEnd($event.target.value)"></label>
    </div>
    <p v-if="endProblem" id="plan-end-problem" class="problem" role="alert"><dbx-icon name="circle-alert" /><span>{{ endProblem }}
      <button v-if="tooMany" type="button" class="chip" @click="num = prompts.length">Make {{ plan.first + prompts.length }}</button></span></p>

    <div v-if="theirs" class="conflict" role="alert">
      <strong>Somebody else has changed this meanwhile</strong>
      <p v-for="words in changes" :key="words">{{ words }}</p>
      <div class="row"><button type="button" class="btn" @click="adopt(job.plan)">Take theirs</button>
        <button type="button" class="btn" :disabled="!!wrong || saving" @click="save">Apply mine all the same</button></div>
    </div>
    <p v-if="problem" class="alert" role="alert">{{ problem }}</p>
    <div class="row plan-acts">
      <button type="button" class="btn" :disabled="saving" @click="finish(!job.plan.finish)"><dbx-icon name="flag" />{{ job.plan.finish ? "Don't finish yet" : "Finish after this clip" }}</button>
      <span class="grow"></span>
      <button v-if="dirty" type="button" class="btn quiet" :disabled="saving" @click="adopt(job.plan)">Undo</button>
      <button v-if="!theirs" type="button" class="btn primary" :disabled="!dirty || !!wrong || saving" @click="save">{{ saving ? "Saving…" : "Save" }}</button>
    </div>
  </section>`,
  data() {
    return { plan: this.job.plan, ...draftOf(this.job, this.job.plan), saving: false, problem: "", shifted: 0 };
  },
  computed: {
    next() {
      return nextClip(this.job);
    },
    now() {
      return current(this.job);
    },
    begun() {
      const made = new Map(this.job.clips.map((clip) => [clip.index, clip.prompt]));
      const all = [...made.keys(), ...[...Array(Math.max(0, this.next - this.plan.first)).keys()].map((i) => this.plan.first + i)];
      return [...new Set(all)].map((index) => ({
        index,
        state: made.has(index) ? "past" : "now",
        prompt: made.get(index) ?? promptOf(this.plan, index),
      }));
    },
    begunWords() {
      const made = this.job.clips.length;
      const words = made ? `${made} made` : "";
      return [words, this.now === null || this.begun.every((row) => row.state === "past") ? "" : `clip ${this.now + 1} is being made`].filter(Boolean).join(", ");
    },
    // As it would be saved: from the job's first clip on.
    prompts() {
      const kept = [...Array(this.next - this.plan.first).keys()].map((i) => promptOf(this.plan, this.plan.first + i));
      return [...kept, ...this.rows.map((row) => row.text)];
    },
    dirty() {
      return this.textsChanged || this.num !== this.plan.num_clips;
    },
    textsChanged() {
      const kept = draftOf(this.job, this.plan).rows;
      return JSON.stringify(kept.map((row) => row.text)) !== JSON.stringify(this.rows.map((row) => row.text));
    },
    most() {
      return CLIPS_MOST - (this.next - this.plan.first);
    },
    leastEnd() {
      return Math.max(this.next, this.plan.first + 1);
    },
    tooMany() {
      return this.num !== null && this.prompts.length > this.num && this.plan.first + this.num >= this.leastEnd;
    },
    endProblem() {
      if (this.num === null) return "";
      const end = this.plan.first + this.num;
      if (!Number.isInteger(end) || end < this.leastEnd || this.num > CLIPS_MOST) return `From ${this.leastEnd} to ${this.plan.first + CLIPS_MOST}: ${this.leastEnd === 1 ? "one is always made" : "so many are made or being made"}.`;
      return this.tooMany ? `There are prompts up to clip ${this.plan.first + this.prompts.length}.` : "";
    },
    problems() {
      return Object.fromEntries(this.rows.map((row, i) => [i, row.text.trim() ? "" : "Say what happens in this clip, or remove it."]).filter(([i, words]) => words && this.told[this.rows[i].id]));
    },
    wrong() {
      return this.endProblem || this.rows.some((row) => !row.text.trim());
    },
    tail() {
      const from = this.next + this.rows.length;
      const end = this.num === null ? null : this.plan.first + this.num;
      if (end === null) return `From clip ${from + 1} on, the last prompt goes on.`;
      return from < end ? `${span(from, end - 1)} ${from + 1 < end ? "go" : "goes"} on with the last prompt.` : "";
    },
    // Saved by somebody else while there is something of our own.
    theirs() {
      return !this.saving && this.job.plan.rev > this.plan.rev && this.dirty;
    },
    changes() {
      return differences(this.plan, this.job.plan);
    },
  },
  watch: {
    "job.plan.rev"() {
      if (!this.saving && !this.dirty) this.adopt(this.job.plan);
    },
    // A clip has begun: its prompt leaves the list, unless it was never saved.
    next(next, before) {
      for (let index = before; index < next; index += 1) {
        if (!this.rows.length) return;
        if (this.rows[0].text === promptOf(this.plan, index) && index - this.plan.first < this.plan.prompts.length) this.rows = this.rows.slice(1);
        else this.shifted = index + 1;
      }
    },
  },
  methods: {
    adopt(plan) {
      Object.assign(this, { plan, ...draftOf(this.job, plan), problem: "", shifted: 0 });
    },
    // With a prompt for each clip, one prompt more or less is one clip more or less.
    change(rows) {
      const by = rows.length - this.rows.length;
      const each = this.num !== null && this.prompts.length === this.num;
      if (each && by) this.num += by;
      this.rows = rows;
    },
    setEnd(text) {
      this.num = text.trim() === "" ? NaN : Number(text) - this.plan.first;
    },
    setEndless(yes) {
      this.num = yes ? null : Math.max(this.plan.num_clips ?? 0, this.prompts.length, this.next - this.plan.first, 1);
    },
    save() {
      return this.send({
        ...(this.textsChanged && { prompts: this.prompts }),
        ...(this.num !== this.plan.num_clips && { num_clips: this.num }),
      });
    },
    async send(change, rev = this.job.plan.rev) {
      this.problem = "";
      this.saving = true;
      const [{ next }, id] = [this, this.job.id];
      try {
        const record = await call("PATCH", `/api/jobs/${id}/plan`, { rev, ...change });
        put(record);
        this.saved(record.plan, change);
      } catch (error) {
        this.problem = error.status === 409 ? "" : error.message;
        await fetchJob(id).catch(() => {}); // what it is now: shown as a conflict, or as its end
        if (this.next > next) this.problem = `${span(next, this.next - 1)} began before this was saved: see above, then save again.`;
      } finally {
        this.saving = false;
      }
    },
  },
};
