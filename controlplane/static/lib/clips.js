// What can be told from a job's clips and its plan. They are counted over the whole video: from 0
// in the API, from 1 in words.

// The index after the last clip, null when there is no last one yet.
export const endOf = (plan) => (plan.num_clips === null ? null : plan.first + plan.num_clips);

// The prompt that the plan has for a clip: the last one goes on.
export const promptOf = (plan, index) => plan.prompts[Math.min(index - plan.first, plan.prompts.length - 1)];

export const endless = (job) => !!job.plan && job.plan.num_clips === null;

// The clip that is being made, null when none is.
export const current = (job) => (job.status === "running" ? job.progress?.clip ?? null : null);

// The first clip that is neither made nor being made: from here on the plan can be changed.
export function nextClip(job) {
  const made = job.clips?.length ? job.clips.at(-1).index + 1 : 0;
  const begun = current(job) === null ? 0 : current(job) + 1;
  return Math.max(made, begun, job.plan.first);
}

// "Clip 3 of 10", "" for a job that makes none at the moment.
export function clipWords(job) {
  const index = current(job);
  if (index === null || !job.plan) return "";
  const end = endOf(job.plan);
  if (job.plan.finish) return `Clip ${index + 1}, the last one`;
  return end === null ? `Clip ${index + 1}` : `Clip ${index + 1} of ${end}`;
}

export const seconds = (clips) => clips.reduce((sum, { artifact }) => sum + (artifact.frames ?? 0) / (artifact.fps || 1), 0);

// "Clip 3", "Clips 3 and 4", "Clips 3 to 6".
export function span(from, to) {
  if (to <= from) return `Clip ${from + 1}`;
  return to === from + 1 ? `Clips ${from + 1} and ${to + 1}` : `Clips ${from + 1} to ${to + 1}`;
}

const until = (plan) => (plan.num_clips === null ? "without end" : `up to clip ${endOf(plan)}`);

// What somebody else has changed in a plan, as short sentences.
export function differences(before, after) {
  const length = Math.max(before.prompts.length, after.prompts.length);
  const found = [];
  for (let i = after.first; i < after.first + length; i += 1) if (promptOf(before, i) !== promptOf(after, i)) found.push(i + 1);
  const told = [];
  if (found.length > 5) told.push(`Other prompts from clip ${found[0]} on.`);
  else if (found.length) told.push(`Another prompt for ${found.length > 1 ? "clips" : "clip"} ${found.join(", ")}.`);
  if (before.num_clips !== after.num_clips) told.push(`It goes on ${until(after)}; it was ${until(before)}.`);
  if (before.finish !== after.finish) told.push(after.finish ? "It finishes after the clip that is being made." : "It does not finish yet.");
  return told;
}
