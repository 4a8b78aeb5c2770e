// Numbers and states in words for people.

import { clipWords, endless } from "./clips.js";
import { live } from "./live.js";

export const STATUS = {
  queued: "Queued",
  running: "Running",
  completed: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};

export const STAGES = [
  ["loading", "Loading model"],
  ["encoding", "Encoding"],
  ["denoising", "Denoising"],
  ["decoding", "Decoding"],
  ["saving", "Saving"],
];
const STAGE_WORDS = { ...Object.fromEntries(STAGES), uploading: "Uploading" };

export const stageWord = (id) => STAGE_WORDS[id] ?? "Starting";

export function headline(job) {
  const { title, headline: name } = live.workflows[job.workflow] ?? {};
  const texts = [job.params?.[name]].flat();
  const text = texts.find((one) => typeof one === "string" && one.trim());
  return text?.trim() || title || job.workflow;
}

export const workflowTitle = (job) => live.workflows[job.workflow]?.title ?? job.workflow;

export const percent = (job) => Math.floor((job.progress?.fraction ?? 0) * 100);

// A share is told only where there is an end.
export const howFar = (job) => (endless(job) ? clipWords(job) || "Endless" : `${percent(job)}%`);

// What a progress bar tells to screen readers; without an end it has no value.
export function barValue(job) {
  return endless(job) ? { "aria-valuetext": howFar(job) } : { "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": percent(job) };
}

// The server's estimate, counted down since it was told.
export function timeLeft(job, now) {
  const eta = job.progress?.eta_s;
  if (eta == null) return "estimating…";
  const left = Math.max(0, eta - (now - job.told_at) / 1000);
  if (left < 1) return "finishing…";
  return `about ${roughly(left)} left`;
}

function roughly(seconds) {
  if (seconds < 20) return `${Math.ceil(seconds)} s`;
  if (seconds < 90) return `${Math.ceil(seconds / 5) * 5} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "";
  if (seconds < 0.95) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${rest} s`;
}

export function took(job) {
  if (!job.started_at || !job.finished_at) return "";
  return duration((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000);
}

export function ago(iso, now) {
  if (!iso) return "";
  const seconds = Math.max(0, (now - Date.parse(iso)) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(iso).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

export const moment = (iso) =>
  iso ? new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : "";

export function bytes(count) {
  if (count == null) return "";
  if (count < 1000) return `${count} B`;
  if (count < 999_500) return `${Math.round(count / 1000)} kB`;
  return count < 999_500_000 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(2)} GB`;
}

// The main output, and the still that stands for it until it plays.
export function outputs(job) {
  const all = job.artifacts ?? [];
  const main = all.find((a) => a.kind === "video") ?? all.find((a) => a.kind === "image") ?? null;
  const images = all.filter((a) => a.kind === "image"); // the last one is the poster, if there is one
  const still = images.at(-1) ?? null;
  return { main, still };
}

export function facts(artifact) {
  const parts = [`${artifact.width} × ${artifact.height}`];
  if (artifact.frames && artifact.fps) parts.push(duration(artifact.frames / artifact.fps), `${artifact.fps} fps`);
  parts.push(bytes(artifact.size_bytes));
  return parts;
}

// Turns "num_frames=80 must be …; nearest: 77 or 81" into a sentence and the values to offer.
export function problemWords(name, message) {
  let text = message;
  if (text.startsWith(name)) {
    text = text.slice(name.length);
    const [whole, at, part] = text.match(/^\[(\d+)\](?:\.(\w+))?/) ?? [""];
    text = text.slice(whole.length).replace(/^=(\([^)]*\)|'[^']*'|\S+)/, "").replace(/^[:\s]+/, "");
    if (whole) text = `Number ${Number(at) + 1}${part ? `, ${part.replaceAll("_", " ")}` : ""}: ${text}`;
  }
  const [sentence, tail] = text.split(/; nearest: /);
  const nearest = tail ? tail.split(" or ").map(Number).filter(Number.isFinite) : [];
  const capital = sentence.charAt(0).toUpperCase() + sentence.slice(1);
  return { text: /[.!?]$/.test(capital) ? capital : capital + ".", nearest };
}
