// The queue beside the stage: what waits and runs, then what was made lately.

import { endless } from "diffbox/clips.js";
import { clock } from "diffbox/clock.js";
import { Icon } from "diffbox/icon.js";
import { cancelJob, live, newestFirst, select, UNFINISHED } from "diffbox/live.js";
import { url } from "diffbox/api.js";
import { ago, barValue, headline, howFar, outputs, stageWord, STATUS, timeLeft } from "diffbox/words.js";

const ROWS = 30;

export default {
  components: { "dbx-icon": Icon },
  template: `
  <aside class="queue" aria-label="Queue">
    <header class="pane-head"><h2>Queue</h2><span v-if="waiting" class="count num">{{ waiting }}</span><span class="grow"></span>
      <a class="btn quiet" href="/jobs">All jobs</a></header>
    <div class="pane-body" tabindex="0" role="region" aria-label="Recent jobs">
      <p v-if="!rows.length" class="hint">{{ synced || lost ? "Nothing is running. Jobs that you start are listed here." : "Looking for jobs…" }}</p>
      <ul v-else class="rows">
        <li v-for="job in rows" :key="job.id" class="row-job" :class="[job.status, { chosen: job.id === chosen }]">
          <button type="button" class="row-open" :aria-current="job.id === chosen ? 'true' : undefined" @click="show(job)">
            <span class="row-pic"><img v-if="picture(job)" :src="picture(job)" alt="" width="80" height="52" loading="lazy"><dbx-icon v-else :name="icon(job)" /></span>
            <span class="row-words">
              <strong class="cut">{{ headline(job) }}</strong>
              <span class="row-meta num"><i class="dot" :class="job.status"></i>{{ state(job) }}</span>
            </span>
          </button>
          <button v-if="open(job)" type="button" class="tool" :disabled="job.cancel_requested" :aria-label="'Cancel ' + headline(job)" title="Cancel" @click="cancel(job)">
            <dbx-icon name="x" /></button>
          <div v-if="job.status === 'running'" class="bar" role="progressbar" :aria-label="'Progress of ' + headline(job)" v-bind="barValue(job)"
               :class="{ busy: endless(job) }"><i :style="{ transform: 'scaleX(' + (job.progress?.fraction ?? 0) + ')' }"></i></div>
        </li>
      </ul>
      <p v-if="problem" class="alert" role="alert">{{ problem }}</p>
    </div>
  </aside>`,
  data: () => ({ problem: "" }),
  computed: {
    rows() {
      const sorted = newestFirst.value;
      const open = sorted.filter((job) => UNFINISHED.has(job.status)).reverse(); // in the order in which they run
      return [...open, ...sorted.filter((job) => !UNFINISHED.has(job.status))].slice(0, Math.max(ROWS, open.length));
    },
    waiting() {
      return this.rows.filter(this.open).length;
    },
    chosen: () => live.selected,
    synced: () => live.synced,
    lost: () => live.lost,
  },
  methods: {
    headline,
    barValue,
    endless,
    open: (job) => UNFINISHED.has(job.status),
    picture(job) {
      const { still } = outputs(job);
      return still ? url(still.url) : job.preview;
    },
    icon: (job) => ({ failed: "circle-alert", cancelled: "ban", queued: "clock" })[job.status] ?? "film",
    state(job) {
      if (job.cancel_requested && UNFINISHED.has(job.status)) return "Cancelling…";
      if (job.status !== "running") return `${STATUS[job.status]} · ${ago(job.finished_at ?? job.created_at, clock.now)}`;
      const left = timeLeft(job, clock.now);
      return `${howFar(job)} · ${left === "estimating…" ? stageWord(job.progress?.stage) : left}`;
    },
    show(job) {
      select(job.id);
      document.querySelector(".stage")?.scrollIntoView({ block: "start" });
    },
    async cancel(job) {
      this.problem = "";
      try {
        await cancelJob(job.id);
      } catch (error) {
        this.problem = error.message;
      }
    },
  },
};
