// What runs, live: one WebSocket a tab, one store that all islands read.
//
//   snapshot ──> jobs by id ──patched by messages, guarded by seq──> islands, tab title, live region
//
// After every (re)connect the server sends a snapshot, so that nothing is lost by a cut socket. It
// leaves clips out, of which there may be hundreds a job, but for the jobs that are looked at.

import { computed, reactive, watchEffect } from "vue";
import { call, url } from "./api.js";
import { headline, howFar } from "./words.js";

const BACKOFF_MS = { first: 500, most: 8000 };
const HEALTH_MS = { settled: 10_000, unsettled: 2000 }; // unsettled: no worker can take a job yet
const KEEP_FINISHED = 200;
const KEEP_CLIPS = 20; // jobs whose clips are known
const SELECTED_KEY = "diffbox.job";
const CREATE_PATH = /\/(create\/[^/]+)?$/;

export const UNFINISHED = new Set(["queued", "running"]);

export const live = reactive({
  connected: false,
  lost: false, // was connected before and is not now
  synced: false, // the snapshot of this connection has come
  jobs: {}, // id -> JobRecord
  selected: null, // id of the job on the stage
  health: null,
  workflows: {}, // id -> {title, headline, and names of parameters: texts, clip, pictures}
  page: "", // the page's name, for the tab's title
  announcement: "",
});

// Ids are UUIDv7, so that their order is the order of creation.
export const newestFirst = computed(() => Object.values(live.jobs).sort((a, b) => (a.id < b.id ? 1 : -1)));
export const unfinished = computed(() => newestFirst.value.filter((job) => UNFINISHED.has(job.status)));
export const ahead = (job) => unfinished.value.filter((other) => other.id < job.id).length;

// An answer over HTTP may be older than what the socket told since. The socket itself is in order,
// and a job that begins anew counts its events from 1 again. Clips are undefined until they are known.
export function put(record, { inOrder = false } = {}) {
  const known = live.jobs[record.id];
  if (!inOrder && known && (known.seq ?? 0) > (record.seq ?? 0)) return known;
  const preview = record.preview ?? known?.preview ?? null;
  live.jobs[record.id] = { ...record, preview, clips: record.clips ?? known?.clips, told_at: Date.now() };
  return live.jobs[record.id];
}

export async function fetchJob(id) {
  return put(await call("GET", `/api/jobs/${encodeURIComponent(id)}`));
}

export async function cancelJob(id) {
  const known = live.jobs[id];
  if (known) known.cancel_requested = true;
  try {
    const record = await call("DELETE", `/api/jobs/${encodeURIComponent(id)}`);
    if (record?.id) put(record);
  } catch (error) {
    if (known) known.cancel_requested = false;
    throw error;
  }
}

// --- clips ---------------------------------------------------------------------------------------

let socket = null;
const looked = []; // ids of the jobs whose clips are wanted, the latest last

export function watchClips(id) {
  const at = looked.indexOf(id);
  if (at >= 0) looked.splice(at, 1);
  looked.push(id);
  if (looked.length > KEEP_CLIPS) {
    const left = live.jobs[looked.shift()];
    if (left) delete left.clips;
  }
  if (live.connected && at < 0) subscribe([id]);
}

function subscribe(ids) {
  socket.send(JSON.stringify({ type: "subscribe", job_ids: ids }));
}

// A clip takes the place of the one with its index and of all after that, but for the same one told again.
function withClip(clips, { index, prompt, seed, artifact, init_bytes }) {
  if (!clips || clips.some((clip) => clip.index === index && clip.artifact.url === artifact.url)) return clips;
  return [...clips.filter((clip) => clip.index < index), { index, prompt, seed, artifact, init_bytes }];
}

// --- the stage's job -----------------------------------------------------------------------------

// In the address for people, and in the tab's storage because NiceGUI changes the address only
// after it has drawn a page.
export function select(id) {
  live.selected = id;
  if (id) sessionStorage.setItem(SELECTED_KEY, id);
  else sessionStorage.removeItem(SELECTED_KEY);
  const here = new URL(location.href);
  if (!CREATE_PATH.test(here.pathname)) return;
  if (id) here.searchParams.set("job", id);
  else here.searchParams.delete("job");
  history.replaceState(history.state, "", here);
}

export const chosen = () => new URL(location.href).searchParams.get("job") ?? sessionStorage.getItem(SELECTED_KEY);

// --- messages ------------------------------------------------------------------------------------

const patches = {
  "job:started": (m) => ({
    status: "running",
    worker: m.worker,
    started_at: m.at ?? new Date().toISOString(),
    progress: { ...m.progress, fraction: 0, stage: "loading", step: 0, steps: 0, eta_s: null },
  }),
  "job:progress": (m, job) => ({
    status: "running",
    preview: m.preview ?? job.preview,
    progress: { fraction: m.progress, stage: m.stage_id, step: m.step, steps: m.steps, eta_s: m.eta_s, clip: m.clip },
  }),
  "job:clip": (m, job) => ({ clips: withClip(job.clips, m) }),
  "job:steered": (m, job) => ({ plan: m.plan.rev > (job.plan?.rev ?? -1) ? m.plan : job.plan }),
  "job:complete": (m) => ({ status: "completed", artifacts: m.artifacts ?? [], metrics: m.metrics ?? {} }),
  "job:error": (m) => ({
    status: "failed",
    error: { code: m.code, message: m.error, retryable: m.retryable, field: m.field ?? null },
  }),
  "job:cancelled": () => ({ status: "cancelled" }),
  "job:requeued": () => ({ status: "queued", worker: null, progress: null }),
};

function apply(message) {
  if (message.type === "job:snapshot") {
    for (const record of message.jobs) put(record, { inOrder: true });
    if (!live.synced) catchUp(new Set(message.jobs.map((record) => record.id)));
    live.synced = true;
    return;
  }
  if (message.job) put(message.job, { inOrder: true });
  const patch = patches[message.type];
  if (!patch) return;
  const job = live.jobs[message.job_id];
  if (!job) {
    fetchJob(message.job_id).catch(() => {}); // gone again, or the next snapshot brings it
    return;
  }
  if (message.seq && job.seq && message.seq <= job.seq) return;
  const before = job.status;
  Object.assign(job, patch(message, job), { seq: message.seq ?? job.seq, told_at: Date.now() });
  if (before !== job.status) changed(job);
}

// Jobs that ended while we were away, so long ago that the snapshot lacks them.
function catchUp(told) {
  for (const job of unfinished.value) {
    if (told.has(job.id)) continue;
    fetchJob(job.id).catch((error) => error.code === "not_found" && delete live.jobs[job.id]);
  }
}

const CHANGES = { running: "started", completed: "is ready", failed: "failed", cancelled: "was cancelled" };

function changed(job) {
  checkHealth(); // a worker has become busy or free
  if (!UNFINISHED.has(job.status)) job.finished_at ??= new Date().toISOString();
  if (CHANGES[job.status]) live.announcement = `${headline(job)} ${CHANGES[job.status]}`;
  const finished = newestFirst.value.filter((other) => !UNFINISHED.has(other.status));
  for (const old of finished.slice(KEEP_FINISHED)) if (old.id !== live.selected) delete live.jobs[old.id];
}

// --- the socket ----------------------------------------------------------------------------------

let backoff = BACKOFF_MS.first;
let started = false;

function open() {
  socket = new WebSocket(url("/ws").replace(/^/, location.origin.replace(/^http/, "ws")));
  socket.onopen = () => {
    backoff = BACKOFF_MS.first;
    live.connected = true;
    live.lost = false;
    subscribe(["*", ...looked]);
    checkHealth();
  };
  socket.onmessage = (event) => apply(JSON.parse(event.data));
  socket.onclose = () => {
    live.lost = live.lost || live.connected;
    live.connected = live.synced = false;
    setTimeout(open, backoff + Math.random() * 300);
    backoff = Math.min(backoff * 2, BACKOFF_MS.most);
  };
}

let healthTimer = 0;

async function checkHealth() {
  clearTimeout(healthTimer);
  if (document.hidden) return;
  try {
    live.health = await call("GET", "/api/health");
  } catch (error) {
    if (error.code === "offline") live.health = null;
  }
  const settled = live.health?.workers?.some((worker) => worker.state === "ready" || worker.state === "busy");
  clearTimeout(healthTimer);
  healthTimer = setTimeout(checkHealth, settled ? HEALTH_MS.settled : HEALTH_MS.unsettled);
}

export function start() {
  if (started) return;
  started = true;
  open();
  document.addEventListener("visibilitychange", checkHealth);
  watchEffect(() => {
    const running = unfinished.value.find((job) => job.status === "running");
    const far = running ? `${howFar(running)} · ` : "";
    document.title = `${far}${live.page ? live.page + " · " : ""}diffbox`;
  });
}
