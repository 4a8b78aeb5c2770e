// What the user has typed, per workflow and tab: survives reloads and restarts of the server.

import { reactive, watch } from "vue";
import { go } from "./api.js";
import { live } from "./live.js";

const SAVE_MS = 150;
const TIER_KEY = "diffbox.tier"; // a taste, so it is shared by all tabs
const drafts = {};

const keyOf = (workflow) => `diffbox.draft.${workflow}`;

function stored(workflow) {
  try {
    return JSON.parse(sessionStorage.getItem(keyOf(workflow))) ?? {};
  } catch {
    return {}; // an older version's or somebody's edit: begin anew
  }
}

// {values: only what was touched, files: what is known about each file reference, keepSeed}
export function draft(workflow) {
  if (!drafts[workflow]) {
    const kept = stored(workflow);
    const state = reactive({
      values: kept.values ?? {},
      files: kept.files ?? {},
      tier: localStorage.getItem(TIER_KEY) ?? "basic",
      revision: 0, // counts fills from outside, so that the form knows to look again
    });
    let timer = 0;
    const save = () => {
      clearTimeout(timer);
      timer = 0;
      const { values, files } = state;
      sessionStorage.setItem(keyOf(workflow), JSON.stringify({ values, files }));
    };
    watch([() => state.values, () => state.files], () => (timer ||= setTimeout(save, SAVE_MS)), { deep: true });
    watch(() => state.tier, (tier) => localStorage.setItem(TIER_KEY, tier));
    window.addEventListener("pagehide", () => timer && save());
    drafts[workflow] = state;
  }
  return drafts[workflow];
}

// "Use these settings": the job's params become the draft.
export function fill(workflow, params) {
  const state = draft(workflow);
  state.values = { ...params };
  state.revision += 1;
}

// The form with these params: the one on this page, or that of the workflow's own page.
export function openForm(workflow, params) {
  fill(workflow, params);
  const form = document.querySelector(`.form[data-workflow="${workflow}"]`);
  if (form) form.scrollIntoView({ block: "start" });
  else go(`/create/${workflow}`);
}

// The form for a job that goes on after a clip of this one: with its settings, but for another seed
// and other prompts, which are empty where none are given.
export function goOnAfter(job, index, prompts = []) {
  const { clip, texts } = live.workflows[job.workflow];
  const { seed, [texts]: before, ...rest } = job.params;
  openForm(job.workflow, { ...rest, ...(prompts.length && { [texts]: prompts }), [clip]: `clip:${job.id}/${index}` });
  live.announcement = `The form goes on after clip ${index + 1}`;
}
