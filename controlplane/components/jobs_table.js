// All jobs, newest first, by status; pages come from REST, rows on the screen stay live.

import { call, url } from "diffbox/api.js";
import { endless } from "diffbox/clips.js";
import { clock } from "diffbox/clock.js";
import { Icon } from "diffbox/icon.js";
import { cancelJob, live, newestFirst, put, UNFINISHED } from "diffbox/live.js";
import { ago, barValue, headline, howFar, outputs, stageWord, STATUS, timeLeft, took, workflowTitle } from "diffbox/words.js";

const PAGE = 30;
const FILTERS = [["", "All"], ...Object.entries(STATUS)];

export default {
  components: { "dbx-icon": Icon },
  template: `
  <div class="page">
    <header class="page-head wrap">
      <h1>Jobs</h1>
      <span class="grow"></span>
      <div class="segments small" role="radiogroup" aria-label="Status">
        <label v-for="[id, word] in filters" :key="id"><input type="radio" name="status" :value="id" v-model="status"><span>{{ word }}</span></label>
      </div>
    </header>
    <p v-if="problem" class="alert" role="alert">{{ problem }}</p>
    <ul v-if="rows.length" class="table">
      <li v-for="job in rows" :key="job.id" class="table-row">
        <a :href="'/jobs/' + job.id" class="table-open">
          <span class="row-pic"><img v-if="picture(job)" :src="picture(job)" alt="" width="96" height="60" loading="lazy"><dbx-icon v-else name="film" /></span>
          <span class="row-words"><strong class="cut">{{ headline(job) }}</strong>
            <span class="row-meta num">{{ workflowTitle(job) }} · {{ ago(job.created_at, now) }}</span></span>
          <span class="table-state"><span class="badge" :class="job.status"><i class="dot" :class="job.status"></i>{{ word(job) }}</span>
            <span class="dim num">{{ note(job) }}</span></span>
        </a>
        <button v-if="open(job)" type="button" class="tool" :disabled="job.cancel_requested" :aria-label="'Cancel ' + headline(job)" @click="cancel(job)"><dbx-icon name="x" /></button>
        <div v-if="job.status === 'running'" class="bar" role="progressbar" :aria-label="'Progress of ' + headline(job)" v-bind="barValue(job)"
             :class="{ busy: endless(job) }"><i :style="{ transform: 'scaleX(' + (job.progress?.fraction ?? 0) + ')' }"></i></div>
      </li>
    </ul>
    <div v-else-if="loaded" class="nothing">
      <span class="orb"><dbx-icon name="list-video" /></span>
      <h2>{{ status ? "No job is " + statusWord.toLowerCase() : "No jobs yet" }}</h2>
      <p>{{ status ? "Jobs with another status may be there." : "Everything that you generate is listed here." }}</p>
      <button v-if="status" type="button" class="btn" @click="status = ''">Show all</button>
      <a v-else class="btn primary" href="/">Create something</a>
    </div>
    <div v-if="next" class="more"><button type="button" class="btn" :disabled="busy" @click="more">{{ busy ? "Loading…" : "Show more" }}</button></div>
  </div>`,
  data: () => ({ status: "", ids: [], next: null, loaded: false, busy: false, problem: "", filters: FILTERS }),
  computed: {
    now: () => clock.now,
    statusWord() {
      return STATUS[this.status];
    },
    // Pages that were loaded, and newer jobs that came since.
    rows() {
      const oldest = this.ids.at(-1) ?? "";
      const known = new Set(this.ids);
      const fits = (job) => !this.status || job.status === this.status;
      return newestFirst.value.filter((job) => fits(job) && (known.has(job.id) || !this.next || job.id > oldest));
    },
  },
  watch: { status: "reload" },
  mounted() {
    live.page = "Jobs";
    this.reload();
  },
  methods: {
    headline,
    workflowTitle,
    ago,
    barValue,
    endless,
    open: (job) => UNFINISHED.has(job.status),
    word: (job) => (job.cancel_requested && UNFINISHED.has(job.status) ? "Cancelling…" : STATUS[job.status]),
    picture(job) {
      const { still } = outputs(job);
      return still ? url(still.url) : job.preview;
    },
    note(job) {
      if (job.status === "running") return [stageWord(job.progress?.stage), howFar(job), !endless(job) && timeLeft(job, clock.now)].filter(Boolean).join(" · ");
      if (job.status === "failed") return job.error?.message ?? "";
      return job.status === "completed" ? took(job) : "";
    },
    reload() {
      this.ids = [];
      this.next = null;
      return this.more();
    },
    async more() {
      const status = this.status;
      const query = new URLSearchParams({ limit: PAGE, ...(status && { status }), ...(this.next && { cursor: this.next }) });
      this.busy = true;
      this.problem = "";
      try {
        const page = await call("GET", `/api/jobs?${query}`);
        if (status !== this.status) return; // another filter was chosen meanwhile
        for (const job of page.jobs) put(job);
        this.ids.push(...page.jobs.map((job) => job.id));
        this.next = page.next;
      } catch (error) {
        this.problem = error.message;
      } finally {
        this.busy = false;
        this.loaded = true;
      }
    },
    async cancel(job) {
      try {
        await cancelJob(job.id);
      } catch (error) {
        this.problem = error.message;
      }
    },
  },
};
