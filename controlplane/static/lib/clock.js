// One ticking clock for all islands; it rests while nobody looks.

import { reactive } from "vue";

export const clock = reactive({ now: Date.now() });

setInterval(() => {
  if (!document.hidden) clock.now = Date.now();
}, 1000);
