// The stage: the job that is looked at, or an invitation when there is none.

import { openForm } from "diffbox/draft.js";
import { Icon } from "diffbox/icon.js";
import { chosen, fetchJob, live, select, UNFINISHED, unfinished } from "diffbox/live.js";
import { headline } from "diffbox/words.js";
import { runAgain, Viewer } from "diffbox/viewer.js";

export default {
  components: { "dbx-viewer": Viewer, "dbx-icon": Icon },
  props: { workflow: String },
  template: `
  <section class="stage" :class="{ vacant: !job }" aria-label="Result">
    <template v-if="job">
      <header class="stage-head">
        <p class="cut" :title="name">{{ name }}</p>
        <span class="grow"></span>
        <a v-if="steers" class="btn" title="Change the clips to come, or finish" :href="'/jobs/' + job.id"><dbx-icon name="sliders-horizontal" />Steer</a>
        <a class="btn quiet" :href="'/jobs/' + job.id">Details<dbx-icon name="chevron-right" /></a>
      </header>
      <dbx-viewer :job="job" clips @reuse="reuse" @again="again" @made="open" />
      <p v-if="problem" class="alert" role="alert">{{ problem }}</p>
    </template>
    <div v-else class="welcome">
      <div class="frames" aria-hidden="true"><i></i><i></i><i><dbx-icon name="play" /></i></div>
      <h2>The result appears here</h2>
      <p>Add a picture, say what should happen, and press Generate. You can watch while it is made.</p>
      <button type="button" class="btn" @click="begin">Start with a picture</button>
    </div>
  </section>`,
  data: () => ({ problem: "" }),
  computed: {
    job() {
      return live.jobs[live.selected] ?? null;
    },
    name() {
      return headline(this.job);
    },
    steers() {
      return this.job.plan && UNFINISHED.has(this.job.status);
    },
  },
  async mounted() {
    const wanted = chosen();
    if (wanted) return this.open(wanted);
    // Nothing was chosen: what runs now is what one wants to see.
    this.unwatch = Vue.watch(
      () => live.synced,
      (synced) => synced && !live.selected && unfinished.value.length && select(unfinished.value[0].id),
      { immediate: true },
    );
  },
  beforeUnmount() {
    this.unwatch?.();
  },
  methods: {
    async open(id) {
      try {
        if (!live.jobs[id]) await fetchJob(id);
        select(id);
      } catch (error) {
        if (error.code === "not_found") select(null);
        else this.problem = error.message;
      }
    },
    reuse() {
      openForm(this.job.workflow, this.job.params);
      live.announcement = "The form holds the settings of this job";
    },
    async again() {
      this.problem = "";
      try {
        await this.open(await runAgain(this.job));
      } catch (error) {
        this.problem = error.message;
      }
    },
    begin() {
      const place = document.querySelector(".form .drop-empty, .form textarea");
      place?.scrollIntoView({ block: "center" });
      place?.focus();
    },
  },
};
