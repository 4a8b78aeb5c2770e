// One job: its picture, its stages with their times, what it was made with and what came of it.

import { call, go, url } from "diffbox/api.js";
import { clipWords } from "diffbox/clips.js";
import { clock } from "diffbox/clock.js";
import { goOnAfter, openForm } from "diffbox/draft.js";
import { Icon } from "diffbox/icon.js";
import { fetchJob, live, select, UNFINISHED } from "diffbox/live.js";
import { ParamsCard } from "diffbox/params_card.js";
import { PlanEditor } from "diffbox/plan_editor.js";
import { ago, bytes, duration, headline, moment, STAGES, stageWord, STATUS, took, workflowTitle } from "diffbox/words.js";
import { runAgain, Viewer } from "diffbox/viewer.js";

export default {
  components: { "dbx-icon": Icon, "dbx-viewer": Viewer, "params-card": ParamsCard, "plan-editor": PlanEditor },
  props: { jobId: String, titles: Object }, // titles: workflow -> parameter -> {title, unit, labels, widget}
  template: `
  <div class="page job-page">
    <div v-if="missing" class="nothing">
      <span class="orb"><dbx-icon name="info" /></span>
      <h1>No such job</h1><p>{{ missing }}</p><a class="btn primary" href="/jobs">All jobs</a>
    </div>
    <template v-else-if="job">
      <header class="page-head">
        <a class="tool" href="/jobs" aria-label="All jobs"><dbx-icon name="arrow-left" /></a>
        <h1 class="cut" :title="name">{{ name }}</h1>
        <span class="badge" :class="job.status"><i class="dot" :class="job.status"></i>{{ status }}</span>
        <span class="grow"></span>
        <button v-if="open" type="button" class="btn" @click="reuse"><dbx-icon name="sliders-horizontal" />Use these settings again</button>
      </header>
      <div class="job-grid">
        <div class="job-main">
          <dbx-viewer :job="job" clips @reuse="reuse" @again="again" @made="show" />
          <p v-if="problem" class="alert" role="alert">{{ problem }}</p>
        </div>
        <div class="job-side">
          <plan-editor v-if="steers" :key="job.id" :job="job" @dirty="unsaved = $event" @goon="goOn" />
          <section class="card" aria-labelledby="stages-h">
            <h2 id="stages-h">Stages<span class="grow"></span><span class="dim num">{{ clipWords }}</span></h2>
            <ol class="steps">
              <li v-for="stage in stages" :key="stage.id" :class="stage.state">
                <i class="mark" aria-hidden="true"><dbx-icon v-if="stage.state === 'past'" name="check" /></i>
                <span>{{ stage.word }}<span v-if="stage.state === 'now'" class="sr"> (now)</span></span>
                <span v-if="stage.state === 'now' && job.progress.steps" class="dim num">{{ job.progress.step }}/{{ job.progress.steps }}</span>
                <span class="grow"></span><span class="num dim">{{ stage.time }}</span>
              </li>
            </ol>
          </section>
          <section class="card" aria-labelledby="about-h">
            <h2 id="about-h">Job</h2>
            <dl>
              <div v-for="[word, value] in about" :key="word"><dt>{{ word }}</dt><dd class="num">{{ value }}</dd></div>
            </dl>
          </section>
          <section class="card" v-if="job.artifacts?.length" aria-labelledby="files-h">
            <h2 id="files-h">Files</h2>
            <ul class="files">
              <li v-for="file in job.artifacts" :key="file.url">
                <dbx-icon :name="file.kind === 'video' ? 'film' : 'images'" />
                <span class="grow min"><strong class="cut">{{ file.filename }}</strong>
                  <span class="dim num">{{ file.width }} × {{ file.height }} · {{ size(file) }}</span></span>
                <a class="tool" :href="link(file.url)" :download="file.filename" :aria-label="'Download ' + file.filename"><dbx-icon name="download" /></a>
              </li>
            </ul>
          </section>
          <params-card :job="job" :titles="titles[job.workflow] ?? {}" />
        </div>
      </div>
    </template>
    <div v-else class="nothing"><p class="dim">Looking for the job…</p></div>
  </div>`,
  data: () => ({ missing: "", problem: "", unsaved: false, entered: {} }),
  computed: {
    job() {
      return live.jobs[this.jobId] ?? null;
    },
    name() {
      return headline(this.job);
    },
    open() {
      return UNFINISHED.has(this.job.status); // the viewer of an ended job has this button itself
    },
    // What was written and not saved stays when the job ends.
    steers() {
      return this.job.plan && this.job.clips && (this.open || this.unsaved);
    },
    clipWords() {
      return clipWords(this.job);
    },
    status() {
      return this.job.cancel_requested && this.open ? "Cancelling…" : STATUS[this.job.status];
    },
    stages() {
      const seconds = this.job.metrics?.stages_s ?? {};
      const order = [...STAGES, ...(seconds.uploading || this.entered.uploading ? [["uploading", stageWord("uploading")]] : [])];
      const done = this.job.status === "completed";
      const here = this.job.status === "running" ? this.job.progress?.stage : this.lastStage;
      const at = done ? order.length : order.findIndex(([id]) => id === here);
      return order.map(([id, word], i) => {
        const now = i === at && this.job.status === "running";
        return { id, word, state: i < at ? "past" : now ? "now" : i === at ? "broken" : "", time: this.stageTime(id, now, seconds) };
      });
    },
    lastStage() {
      return Object.entries(this.entered).sort(([, a], [, b]) => b - a)[0]?.[0];
    },
    about() {
      const { job } = this;
      const rows = [
        ["Workflow", workflowTitle(job)],
        ["Created", `${moment(job.created_at)} (${ago(job.created_at, clock.now)})`],
        ["Started", moment(job.started_at)],
        ["Took", took(job)],
        ...this.measured,
        ["Worker", job.worker],
        ["Attempt", job.attempt > 1 ? job.attempt : ""],
        ["Lane", job.lane === "normal" ? "" : job.lane],
        ["Id", job.id],
      ];
      return rows.filter(([, value]) => value);
    },
    // What else the worker has measured: numbers by name, with the unit at its end.
    measured() {
      return Object.entries(this.job.metrics ?? {})
        .filter(([name, value]) => typeof value === "number" && !["seed", "total_s"].includes(name))
        .map(([name, value]) => {
          const [, words, unit] = name.match(/^(.+?)(?:_(s|bytes|gib))?$/);
          const shown = { s: duration, bytes, gib: (count) => `${count} GiB` }[unit]?.(value) ?? value;
          return [words[0].toUpperCase() + words.slice(1).replaceAll("_", " "), shown];
        });
    },
  },
  watch: {
    "job.progress.stage"(stage) {
      if (stage && !this.entered[stage]) this.entered[stage] = Date.now();
    },
    // The stages begin anew with each clip.
    "job.progress.clip"(clip, before) {
      if (before != null) this.entered = this.job.progress?.stage ? { [this.job.progress.stage]: Date.now() } : {};
    },
    "job.status"(status) {
      if (status === "queued") this.entered = {};
    },
  },
  async mounted() {
    live.page = "Job";
    try {
      await fetchJob(this.jobId);
      await this.past();
    } catch (error) {
      if (!this.job) this.missing = error.code === "not_found" ? "It may have been removed, or the address is wrong." : error.message;
    }
  },
  methods: {
    link: url,
    size: (file) => bytes(file.size_bytes),
    // When each stage began, from the job's events; they are kept for a while only.
    async past() {
      const { events } = await call("GET", `/api/jobs/${this.jobId}/events`);
      let clip = null;
      for (const event of events) {
        if (event.type === "started" || (event.type === "progress" && event.clip != null && clip !== null && event.clip !== clip)) this.entered = {};
        if (event.type === "progress") clip = event.clip;
        if (event.type === "progress" && !this.entered[event.stage]) this.entered[event.stage] = Date.parse(event.at);
      }
    },
    stageTime(id, now, seconds) {
      if (seconds[id] != null) return duration(seconds[id]);
      const from = this.entered[id];
      if (!from) return "";
      if (now) return duration(Math.max(1, Math.round((clock.now - from) / 1000)));
      const next = Object.values(this.entered).filter((at) => at > from).sort((a, b) => a - b)[0];
      return next ? duration((next - from) / 1000) : "";
    },
    reuse() {
      select(this.job.id);
      openForm(this.job.workflow, this.job.params);
    },
    goOn(texts) {
      goOnAfter(this.job, this.job.clips.at(-1).index, texts);
    },
    show(id) {
      go(`/jobs/${id}`);
    },
    async again() {
      this.problem = "";
      try {
        this.show(await runAgain(this.job));
      } catch (error) {
        this.problem = error.message;
      }
    },
  },
};
