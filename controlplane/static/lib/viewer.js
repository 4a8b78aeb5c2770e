// A job as a picture: waiting, the preview with its progress, the video, or what went wrong.

import { call, url } from "./api.js";
import { clipWords, endless } from "./clips.js";
import { clock } from "./clock.js";
import { Compare } from "./compare.js";
import { Film } from "./film.js";
import { Icon } from "./icon.js";
import { ahead, cancelJob, live, watchClips } from "./live.js";
import { barValue, facts, headline, howFar, outputs, percent, stageWord, STAGES, timeLeft } from "./words.js";

const UPLOAD = "upload:";

// What a person can do about an error, by its code.
const ADVICE = {
  out_of_memory: "Choose a smaller size or fewer frames, then try again.",
  model_missing: "The weights have to be downloaded before this model can run.",
  worker_lost: "The worker stopped several times while it ran this job. Its log says why.",
  input_rejected: "Choose another file, then try again.",
  timeout: "The job took longer than it may.",
  storage_failed: "Free some disk space, then try again.",
  internal: "This is a bug in diffbox. The worker's log has the details.",
};

const progress = `
  <div class="progress">
    <div class="progress-words">
      <strong class="num">{{ words }}</strong>
      <span v-if="steps" class="num">step {{ job.progress.step }}/{{ job.progress.steps }}</span>
      <span class="grow"></span>
      <template v-if="!endless"><span class="num dim">{{ left }}</span><span class="num">{{ far }}</span></template>
    </div>
    <div class="bar" :class="{ busy: !steps || endless }" role="progressbar" :aria-label="'Progress of ' + name" v-bind="barValue" :aria-valuetext="told">
      <i :style="{ transform: 'scaleX(' + (endless ? 0 : job.progress?.fraction ?? 0) + ')' }"></i>
    </div>
    <ol class="stages" aria-hidden="true">
      <li v-for="stage in stages" :key="stage.id" :class="stage.state">{{ stage.word }}</li>
    </ol>
  </div>`;

export const Viewer = {
  components: { "dbx-icon": Icon, "dbx-film": Film, "dbx-compare": Compare },
  props: {
    job: Object,
    actions: { type: Boolean, default: true },
    clips: Boolean, // with the clips of a job that makes some, and what can be done with them
  },
  emits: ["reuse", "again", "made"], // made: another job, with its id
  template: `
  <div class="viewer" :class="[job.status, { filmed }]">
    <template v-if="filmed">
      <dbx-film :job="job" :actions="actions" :moves="moves" @made="$emit('made', $event)" />
      <div class="under">
        <template v-if="job.status === 'running'">${progress}
          <button type="button" class="btn" :disabled="job.cancel_requested" @click="cancel">{{ job.cancel_requested ? "Cancelling…" : "Cancel" }}</button>
        </template>
        <template v-else-if="job.status === 'queued'">
          <p class="ended"><strong>In the queue</strong><span class="dim">{{ waiting }}</span></p>
          <button type="button" class="btn" :disabled="job.cancel_requested" @click="cancel">Cancel</button>
        </template>
        <template v-else>
          <p v-if="main" class="facts num"><span v-for="fact in facts" :key="fact">{{ fact }}</span></p>
          <p v-else-if="job.status === 'failed'" class="ended"><strong class="bad">It went wrong after {{ job.clips.length > 1 ? job.clips.length + " clips" : "one clip" }}</strong>
            <span>{{ job.error?.message }}</span><span v-if="advice" class="dim">{{ advice }}</span></p>
          <p v-else class="ended"><strong>Cancelled</strong><span class="dim">What was made until then is kept.</span></p>
          <div v-if="actions" class="row">
            <button type="button" class="btn" @click="$emit('reuse')"><dbx-icon name="sliders-horizontal" />Use these settings</button>
            <a v-if="main" class="btn primary" :href="link(main.url)" :download="main.filename"><dbx-icon name="download" />Download</a>
          </div>
        </template>
      </div>
    </template>

    <div v-else-if="job.status === 'queued'" class="notice">
      <span class="orb"><dbx-icon name="clock" /></span>
      <h2>In the queue</h2>
      <p>{{ waiting }}</p>
      <div class="row"><button type="button" class="btn" :disabled="job.cancel_requested" @click="cancel">Cancel</button></div>
    </div>

    <template v-else-if="job.status === 'running'">
      <div class="canvas" :style="shape">
        <img v-if="job.preview" class="preview" :src="job.preview" alt="Preview of the running job">
        <div v-else class="blank"><dbx-icon name="clapperboard" /></div>
      </div>
      <div class="under">
        ${progress}
        <button type="button" class="btn" :disabled="job.cancel_requested" @click="cancel">
          {{ job.cancel_requested ? "Cancelling…" : "Cancel" }}
        </button>
      </div>
    </template>

    <template v-else-if="job.status === 'completed' && main">
      <div class="canvas" :style="mainShape">
        <video v-if="main.kind === 'video'" :key="main.url" :src="link(main.url)" :poster="poster" controls :autoplay="moves" muted loop
               playsinline :width="main.width" :height="main.height" :aria-label="'Video: ' + name" @error="gone = true"></video>
        <dbx-compare v-else-if="comparing && before" :key="job.id" :before="before" :after="link(main.url)" :label="name" :width="main.width" :height="main.height" @gone="gone = true" />
        <img v-else :key="main.url" :src="link(main.url)" :alt="name" :width="main.width" :height="main.height" @error="gone = true">
        <p v-if="gone" class="gone">The file is no longer there.</p>
      </div>
      <div class="under">
        <p class="facts num"><span v-for="fact in facts" :key="fact">{{ fact }}</span></p>
        <div v-if="actions" class="row">
          <button v-if="before" type="button" class="btn toggle" :aria-pressed="comparing" @click="comparing = !comparing"><dbx-icon name="columns-2" />Compare</button>
          <button type="button" class="btn" @click="$emit('reuse')"><dbx-icon name="sliders-horizontal" />Use these settings</button>
          <a class="btn primary" :href="link(main.url)" :download="main.filename"><dbx-icon name="download" />Download</a>
        </div>
      </div>
    </template>

    <div v-else-if="job.status === 'failed'" class="notice" role="group" aria-label="What went wrong">
      <span class="orb bad"><dbx-icon name="circle-alert" /></span>
      <h2>{{ job.error?.code === 'out_of_memory' ? "Not enough memory" : "This did not work" }}</h2>
      <p class="cause">{{ job.error?.message ?? "No cause was told." }}</p>
      <p v-if="advice" class="dim">{{ advice }}</p>
      <div v-if="actions" class="row">
        <button type="button" class="btn" @click="$emit('reuse')"><dbx-icon name="sliders-horizontal" />Change settings</button>
        <button type="button" class="btn primary" @click="$emit('again')"><dbx-icon name="refresh-cw" />Try again</button>
      </div>
    </div>

    <div v-else class="notice">
      <span class="orb"><dbx-icon name="ban" /></span>
      <h2>{{ job.status === "cancelled" ? "Cancelled" : "Nothing was made" }}</h2>
      <p>{{ job.status === "cancelled" ? "The job was stopped before it was done." : "The job ended without an output." }}</p>
      <div v-if="actions" class="row">
        <button type="button" class="btn" @click="$emit('reuse')"><dbx-icon name="sliders-horizontal" />Use these settings</button>
        <button type="button" class="btn primary" @click="$emit('again')"><dbx-icon name="refresh-cw" />Run again</button>
      </div>
    </div>
    <p v-if="problem" class="alert" role="alert">{{ problem }}</p>
  </div>`,
  data: () => ({ gone: false, problem: "", comparing: false, moves: !matchMedia("(prefers-reduced-motion: reduce)").matches }),
  watch: {
    "job.id": {
      immediate: true,
      handler(id) {
        Object.assign(this, { gone: false, problem: "", comparing: false });
        if (this.clips && this.job.plan) watchClips(id);
      },
    },
  },
  computed: {
    name() {
      return headline(this.job);
    },
    filmed() {
      return this.clips && this.job.clips?.length > 0;
    },
    main() {
      return outputs(this.job).main;
    },
    // The first picture that an edited one was made from, when it is here.
    before() {
      const { pictures } = live.workflows[this.job.workflow] ?? {};
      const [ref] = [this.job.params?.[pictures]].flat();
      return this.main?.kind === "image" && ref?.startsWith(UPLOAD) ? url("/api/uploads/" + ref.slice(UPLOAD.length)) : "";
    },
    poster() {
      const { still } = outputs(this.job);
      return still ? url(still.url) : undefined;
    },
    facts() {
      return facts(this.main);
    },
    shape() {
      const { width, height } = this.job.params ?? {};
      return width && height ? { aspectRatio: `${width} / ${height}`, "--ratio": width / height } : {};
    },
    mainShape() {
      return { aspectRatio: `${this.main.width} / ${this.main.height}`, "--ratio": this.main.width / this.main.height };
    },
    far() {
      return howFar(this.job);
    },
    endless() {
      return endless(this.job);
    },
    barValue() {
      return barValue(this.job);
    },
    // "Clip 3 of 10 · Denoising"
    words() {
      return [clipWords(this.job), stageWord(this.job.progress?.stage)].filter(Boolean).join(" · ");
    },
    told() {
      return this.endless ? this.words : `${this.words}, ${percent(this.job)} percent`;
    },
    steps() {
      return (this.job.progress?.steps ?? 0) > 0;
    },
    left() {
      return timeLeft(this.job, clock.now);
    },
    waiting() {
      if (live.health && !live.health.workers?.length) return "It starts as soon as a worker is there.";
      const before = ahead(this.job);
      if (!before) return "It is next.";
      return before === 1 ? "One job is before it." : `${before} jobs are before it.`;
    },
    advice() {
      return ADVICE[this.job.error?.code] ?? "";
    },
    stages() {
      const at = STAGES.findIndex(([id]) => id === this.job.progress?.stage);
      return STAGES.map(([id, word], i) => ({ id, word, state: i < at ? "past" : i === at ? "now" : "" }));
    },
  },
  methods: {
    link: url,
    async cancel() {
      this.problem = "";
      try {
        await cancelJob(this.job.id);
      } catch (error) {
        this.problem = error.message;
      }
    },
  },
};

// Puts the same job into the queue again; gives the new job's id.
export async function runAgain(job) {
  const params = Object.fromEntries(Object.entries(job.params).filter(([, value]) => value !== null));
  const answer = await call("POST", `/api/workflows/${job.workflow}`, params);
  return answer.job_id;
}

